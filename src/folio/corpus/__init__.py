"""Turns the user's files into documents, split into training and validation text; every character
is accounted for.
"""
