"""A host with nothing but a sweep script."""
