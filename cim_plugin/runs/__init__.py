"""Runs on the disk, and the processes that make them."""
