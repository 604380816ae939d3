"""The model built up, one idea per file: read step0_bigram.py to step6_layer_norm.py in order."""
