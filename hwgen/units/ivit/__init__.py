"""Arithmetic units of the `ivit` scheme; each has a golden of the same name in
`models/integer/ivit`.
"""
