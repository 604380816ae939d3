"""Searches settings: a space of them, and a study that tries them."""
