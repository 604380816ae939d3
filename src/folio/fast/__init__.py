"""The same layers for CPUs: compiled kernels under autograd, and a compiled decoder."""
