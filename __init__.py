"""Vitruvius: what a Vision Transformer costs on four kinds of hardware, and whether it is right.

The folders are the story: ``models`` (what is computed), ``hwgen`` (how hardware computes it),
``sim`` (what it costs), ``fpga_targets`` (where it runs), ``optical`` (4f optics), ``reports``
(what people look at) and ``cli`` (the ``vitruvius`` command).
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
