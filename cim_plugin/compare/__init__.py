"""Runs side by side: tables, plots, a page."""
