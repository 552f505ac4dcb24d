"""What :mod:`scripts.study` is made of."""
