"""Widths of integer codes by the names that people give them: w8a16, w4a16, w4a16g32."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from ..errors import VitruviusError

__all__ = ["CodeWidths"]

_DEFINED = ("w4a8", "w4a16", "w8a8", "w8a16")
_NAME = re.compile(r"w(4|8)a(8|16)(?:g([0-9]{1,6}))?")
_GROUPS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class CodeWidths:
    """Bits of weights and of activations; ``group`` weights of an output share a scale, all of them
    if 0.
    """

    weight: int
    activation: int
    group: int = 0

    @property
    def name(self) -> str:
        """As people write it.

        >>> CodeWidths(4, 16, 32).name
        'w4a16g32'
        """
        return f"w{self.weight}a{self.activation}" + (f"g{self.group}" if self.group else "")

    @classmethod
    def parsed(cls, text: str) -> Self:
        """The widths called ``text``; raises VitruviusError for those that are not defined."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise VitruviusError(
                f"precision '{text}' is not defined: expected {', '.join(_DEFINED)}, and perhaps "
                "a group of weights that share a scale, such as w4a16g32"
            )
        group = int(found[3] or 0)
        if found[3] and group not in _GROUPS:
            raise VitruviusError(
                f"precision '{text}': expected a group of {', '.join(map(str, _GROUPS))} weights, "
                f"got {group}"
            )
        return cls(int(found[1]), int(found[2]), group)
