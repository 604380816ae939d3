"""Byte-pair encoding: `reference` is written to be read; `split`, `count`, `train` and `encode` to
run.
"""
