"""Secure inference by several parties: its cost in rounds and bytes, and a run that proves it."""
