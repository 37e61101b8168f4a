"""The bundles of wires: AXI4 reading, AXI4 writing and AXI4-Lite, as their masters see them.

AMBA AXI and ACE protocol specification, ARM IHI 0022, issue H. What this design leaves constant:
one id (0), INCR bursts of full-width beats, and the cache and protection bits below.
"""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

__all__ = [
    "BORDER_BYTES",
    "CACHE",
    "INCR",
    "MAX_BEATS",
    "OKAY",
    "PORT_BITS",
    "PROTECTION",
    "SLAVE_ERROR",
    "LiteSignature",
    "ReadSignature",
    "WriteSignature",
    "beat_bytes",
    "border_beats",
    "check_outstanding",
    "check_port_bits",
    "connect_flat",
    "flat_members",
]

PORT_BITS = (64, 128, 256, 512)
MAX_BEATS = 256
"""Beats of the longest burst."""
BORDER_BYTES = 4096
"""No burst crosses a multiple of this (A3.4.1)."""
INCR = 1
CACHE = 0b0011
"""Normal memory, bufferable and not cacheable (A4.4): what a DMA master uses."""
PROTECTION = 0b000
OKAY, SLAVE_ERROR = 0, 2


def check_port_bits(port_bits: int) -> int:
    """``port_bits``; raises ValueError unless it is one of `PORT_BITS`."""
    if port_bits not in PORT_BITS:
        raise ValueError(f"port_bits: expected one of {PORT_BITS}, got {port_bits!r}")
    return port_bits


def check_outstanding(outstanding: int) -> int:
    """``outstanding``; raises ValueError unless it is 1 to 16."""
    if not 1 <= outstanding <= 16:
        raise ValueError(f"outstanding: expected 1 to 16 bursts, got {outstanding!r}")
    return outstanding


def beat_bytes(port_bits: int) -> int:
    """Bytes of a beat.

    >>> beat_bytes(128)
    16
    """
    return check_port_bits(port_bits) // 8


def border_beats(port_bits: int) -> int:
    """Bursts of this design end where the address in beats is a multiple of this.

    A burst that stays between two such borders has at most 256 beats and stays in its 4 KB.

    >>> [border_beats(bits) for bits in PORT_BITS]
    [256, 256, 128, 64]
    """
    return min(MAX_BEATS, BORDER_BYTES // beat_bytes(port_bits))


def _address(channel: str, ready: str) -> dict[str, Member]:
    return {
        f"{channel}id": Out(1),
        f"{channel}addr": Out(64),
        f"{channel}len": Out(8),
        f"{channel}size": Out(3),
        f"{channel}burst": Out(2, init=INCR),
        f"{channel}cache": Out(4, init=CACHE),
        f"{channel}prot": Out(3, init=PROTECTION),
        f"{channel}valid": Out(1),
        ready: In(1),
    }


class ReadSignature(wiring.Signature):
    """AR and R of AXI4 with a 1-bit id."""

    def __init__(self, port_bits: int) -> None:
        self.port_bits = check_port_bits(port_bits)
        super().__init__(
            {
                **_address("ar", "arready"),
                "rid": In(1),
                "rdata": In(port_bits),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class WriteSignature(wiring.Signature):
    """AW, W and B of AXI4 with a 1-bit id."""

    def __init__(self, port_bits: int) -> None:
        self.port_bits = check_port_bits(port_bits)
        super().__init__(
            {
                **_address("aw", "awready"),
                "wdata": Out(port_bits),
                "wstrb": Out(port_bits // 8),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class LiteSignature(wiring.Signature):
    """AXI4-Lite with 32 bits of data."""

    def __init__(self, address_bits: int) -> None:
        self.address_bits = address_bits
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


def flat_members(prefix: str, *signatures: wiring.Signature) -> dict[str, Member]:
    """Members ``prefix_name`` for every wire of the signatures, in their directions.

    A nested member would become ``prefix__name`` in Verilog, which is not what tools look for.

    >>> "memory_araddr" in flat_members("memory", ReadSignature(64))
    True
    """
    return {
        f"{prefix}_{name}": member
        for signature in signatures
        for name, member in signature.members.items()
    }


def connect_flat(
    m: Module, outer: wiring.Component, prefix: str, inner: wiring.PureInterface
) -> None:
    """Wires the ``prefix_name`` members of ``outer`` to an interface of a submodule.

    Works for masters (members as `flat_members` gives them) and, with flipped ones, for slaves.
    """
    for name, member in inner.signature.members.items():
        port, wire = getattr(outer, f"{prefix}_{name}"), getattr(inner, name)
        m.d.comb += port.eq(wire) if member.flow == Out else wire.eq(port)
