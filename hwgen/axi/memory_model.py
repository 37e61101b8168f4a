"""The memory behind the AXI4 port as the cycle contracts see it: three numbers and their rules."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_MEMORY", "MemoryModel"]


@dataclass(frozen=True)
class MemoryModel:
    """A memory whose every answer comes in a cycle that follows from the requests alone.

    Reading:

    1. ``arready`` in cycle t is 1 exactly if fewer than ``outstanding`` bursts are pending in t. A
       burst is pending from the cycle after the one in which its AR was accepted (arvalid and
       arready) up to and including the cycle of its last beat. ``arready`` does not depend on
       ``arvalid``.
    2. Bursts are answered in order. The first beat of a burst accepted in cycle a comes in the
       first cycle t with t >= a + ``latency`` and t >= p + 1 + ``gap``, where p is the cycle of the
       beat before it (the last one of the burst before it).
    3. Beats of a burst come ``gap`` + 1 cycles apart. ``rready`` is always 1, so a beat is valid
       for one cycle; in all others ``rvalid`` is 0. ``rlast`` is 1 with the last beat of a burst.

    Writing, independent of reading:

    4. ``awready`` in cycle t is 1 exactly if fewer than ``outstanding`` write bursts are pending in
       t: from the cycle after their AW was accepted up to and including the cycle of their B.
    5. ``wready`` is 1 in cycle t unless a beat was accepted in one of the ``gap`` cycles before t.
       (The master offers no beat of a burst before the cycle after its AW was accepted.)
    6. Bursts are answered in order: B of a burst whose last beat was accepted in cycle l comes in
       the first cycle t with t >= l + ``latency`` and t > the cycle of the B before it. ``bready``
       is always 1.

    Parameters
    ----------
    latency : at least 1; gap : idle cycles between beats; outstanding : bursts, at least 1.

    Raises
    ------
    ValueError
        One of them is out of range.
    """

    latency: int
    gap: int = 0
    outstanding: int = 16

    def __post_init__(self) -> None:
        for name, least in (("latency", 1), ("gap", 0), ("outstanding", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value!r}")


DEFAULT_MEMORY = MemoryModel(latency=100)
"""What is assumed where nobody says otherwise: a beat a cycle, the first one after 100 cycles."""
