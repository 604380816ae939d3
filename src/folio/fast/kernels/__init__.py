"""The compiled kernels. They import numba, and are imported where they are called."""
