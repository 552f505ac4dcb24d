"""Commands of a checkout, run from its root: ``python -m scripts.study``. Files without a suffix set up .venv first."""
