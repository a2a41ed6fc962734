"""Triton kernels and what launches them; imported only where one runs, since Triton exists on Linux alone."""
