"""A training step by several processes, made fast."""
