"""Hybrids: models that keep a state of constant size in most layers and attention in a few."""
