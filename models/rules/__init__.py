"""Rewrite rules from ATen operators to the words of the graph, one function each, registered on
import.
"""

from __future__ import annotations

from . import attention, linear, pointwise, shape

__all__ = ["attention", "linear", "pointwise", "shape"]
