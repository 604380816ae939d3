"""A model and a prompt -> tokens. Pure: knows no path and no run."""
