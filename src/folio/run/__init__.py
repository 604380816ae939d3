"""The run directory, which separates what makes a model from what uses one."""
