"""Optimizers, schedules, the state that survives a restart, and the loop."""
