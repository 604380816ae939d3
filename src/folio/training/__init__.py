"""The training loop, optimizers, schedules, and the state that survives a restart."""
