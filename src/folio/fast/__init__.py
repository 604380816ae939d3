"""The same layers for processors: compiled kernels under autograd, and a compiled decoder."""
