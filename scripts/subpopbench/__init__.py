"""CIM beside SubpopBench's own algorithms, on small images in Waterbirds' layout: ``python -m scripts.subpopbench``."""
