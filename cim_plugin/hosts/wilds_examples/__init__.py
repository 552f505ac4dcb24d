"""A checkout of WILDS as host: what ``examples/run_expt.py`` reads."""
