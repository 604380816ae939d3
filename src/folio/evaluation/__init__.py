"""A model and tokens -> numbers. Pure: knows no path and no run."""
