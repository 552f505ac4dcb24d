"""Data sets: synthetic ones that need no download, converters of public archives, and what is there."""
