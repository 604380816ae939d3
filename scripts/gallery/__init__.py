"""Models of a few minutes on small texts of many kinds, and the pages that show them.

python -m scripts.gallery --minutes 5      trains one model for each text, then writes docs/gallery
"""
