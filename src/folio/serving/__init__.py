"""A run over HTTP, as OpenAI's clients know it: rows that join a running batch, and a page."""
