"""A run -> files that other programs read, each checked against the run; their files -> runs."""
