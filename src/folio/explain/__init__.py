"""A run and a text -> what the model makes of it, as numbers, an HTML page, or terminal output."""
