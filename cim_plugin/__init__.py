"""Contrastive Input Morphing for DomainBed and WILDS. Importing this imports nothing else: every Python start does
it.
"""

__version__ = "0.2.0"
