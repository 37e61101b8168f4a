"""Where tensors lie in a buffer, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Arena", "Rows", "ceil_div"]


def ceil_div(amount: int, unit: int) -> int:
    """How many ``unit`` it takes to hold ``amount``.

    >>> ceil_div(17, 4)
    5
    """
    return -(-amount // unit)


@dataclass(frozen=True)
class Rows:
    """A tensor in a lane buffer: row ``base`` on, ``pitch`` rows a token, features in groups of
    whole rows.
    """

    base: int
    pitch: int
    tokens: int
    groups: int
    group_features: int

    @property
    def group_pitch(self) -> int:
        """Rows from one group of a token to the next."""
        return self.pitch // self.groups


@dataclass
class Arena:
    """First-fit allocation of rows, with the high-water mark."""

    live: dict[str, tuple[int, int]] = field(default_factory=dict)
    peak: int = 0

    def take(self, name: str, rows: int) -> int:
        """Reserves ``rows`` rows for ``name`` in the first gap that is large enough; its first
        row.
        """
        base = 0
        for start, size in sorted(self.live.values()):
            if start - base >= rows:
                break
            base = max(base, start + size)
        self.live[name] = (base, rows)
        self.peak = max(self.peak, base + rows)
        return base

    def free(self, name: str) -> None:
        """Gives the rows of ``name`` back; nothing happens if it has none."""
        self.live.pop(name, None)
