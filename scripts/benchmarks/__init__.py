"""The benchmarks of :mod:`scripts.bench`."""
