"""CIM on photographs beside what it has to be compared with: ``python -m scripts.evidence subgroups``."""
