"""Measures this machine and this text, and predicts how long a run takes and how good it gets."""
