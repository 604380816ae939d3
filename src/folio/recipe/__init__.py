"""A run, from settings to result. Read `train.py` first: it is the whole of Folio on one page."""
