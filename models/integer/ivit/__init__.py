"""Exact integer arithmetic of the `ivit` scheme (I-ViT: Li and Gu, ICCV 2023, arXiv 2207.01405).

Everything travels as integer codes with the scales beside them, never as code times scale, so a
result does not depend on how floats round. Where the published code and the paper differ, or where
the code is inexact, each file says what is computed here and which mode is the published one.
"""
