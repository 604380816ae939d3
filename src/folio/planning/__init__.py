"""Measure this machine and this text, predict what a run will take and give."""
