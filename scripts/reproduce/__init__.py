"""The experiments of the poster: ``python -m scripts.reproduce waterbirds``."""
