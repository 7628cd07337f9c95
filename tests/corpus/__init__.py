"""Hostile inputs, generated: nothing of them lies on the disk."""
