"""Protocols of secure inference, and what each of their functions makes the parties exchange."""

from __future__ import annotations

from ....errors import VitruviusError, nearest
from .aby3 import Aby3
from .cheetah import Cheetah
from .crypten import Crypten
from .functions import FUNCTIONS, Shape
from .protocol import Protocol
from .semi2k import Semi2k

__all__ = ["FUNCTIONS", "PROTOCOLS", "Protocol", "Shape", "load_protocol"]

PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind for kind in (Crypten, Semi2k, Aby3, Cheetah)
}


def load_protocol(name: str, *, parties: int | None = None, dealer: str | None = None) -> Protocol:
    """The protocol called ``name``, with its own number of parties and dealer unless told.

    Raises VitruviusError for an unknown name, another number of parties than the protocol has, or
    a dealer that it does not know.

    >>> load_protocol("semi2k").fraction_bits
    18
    """
    if name not in PROTOCOLS:
        raise VitruviusError(f"unknown protocol '{name}': {nearest(name, PROTOCOLS)}")
    kind = PROTOCOLS[name]
    own = int(kind.model_fields["parties"].default)
    if parties not in (None, own):
        others = ", ".join(
            f"{other.name} has {other.model_fields['parties'].default}"
            for other in PROTOCOLS.values()
            if other.name != name
        )
        raise VitruviusError(f"protocol {name} is for {own} parties, got {parties}; {others}")
    if dealer is not None and dealer not in kind.dealers:
        raise VitruviusError(
            f"protocol {name}: expected dealer {' or '.join(kind.dealers)}, got '{dealer}'"
        )
    return kind.model_validate({} if dealer is None else {"dealer": dealer})
