"""Arithmetic units of the `ivit` scheme, and parts of them; each unit names its golden in
`models/integer/ivit`.
"""
