"""Data sets: from mirrors, from public archives, synthetic ones, one's own; and what is there."""
