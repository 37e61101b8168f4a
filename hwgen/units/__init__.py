"""Arithmetic units in Amaranth; each has an integer golden of the same name in `models/integer`."""
