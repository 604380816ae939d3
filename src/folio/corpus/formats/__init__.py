"""Formats of documents -> text, one file a format."""
