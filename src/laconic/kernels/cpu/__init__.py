"""The hot loops for CPUs, compiled by numba at their first use."""
