"""Serving a memory to other programs."""
