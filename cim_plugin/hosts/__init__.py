"""Thin adapters, one per host. Host-bound imports live only here."""
