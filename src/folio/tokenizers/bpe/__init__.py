"""Byte-pair encoding: `reference` to read, `split`, `count`, `train` and `encode` to run."""
