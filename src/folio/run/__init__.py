"""The run directory: the wall between what makes a model and what uses one."""
