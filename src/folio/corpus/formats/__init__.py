"""Formats of documents -> text, one file per format."""
