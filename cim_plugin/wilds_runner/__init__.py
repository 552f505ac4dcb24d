"""Training on the pip-installed ``wilds`` package: flags, defaults and file names of WILDS' ``run_expt.py``."""
