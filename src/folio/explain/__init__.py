"""A run and a text -> what the model makes of it: numbers, one HTML page, or the terminal."""
