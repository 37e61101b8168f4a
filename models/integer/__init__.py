"""Exact integer arithmetic of the `edge` scheme: one file per operator, each the golden of an RTL
unit.
"""
