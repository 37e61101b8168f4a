"""Secure inference as tables: one model on one target, one function, protocols and networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..sim.mpc.network import Network
    from ..sim.mpc.options import MpcOptions
    from ..sim.mpc.protocols import Protocol
    from ..sim.mpc.report import MpcEstimate
    from ..sim.mpc.traffic import OperatorTraffic, Traffic

__all__ = [
    "conventions",
    "cost_record",
    "cost_table",
    "mpc_estimate_table",
    "networks_table",
    "protocols_table",
]


def conventions(traffic: Traffic) -> str:
    """The bytes of one party in both ways that are in use."""
    return (
        f"CrypTen's way, sent + received: {count(traffic.sent_and_received)} bytes; "
        f"SPU's way, sent: {count(traffic.bytes_sent)} bytes"
    )


def mpc_estimate_table(estimate: MpcEstimate) -> Group:
    """What one image costs one party, operator by operator, then by kind."""
    numbers = ["rounds", "sent", "received", "offline", "latency"]
    table = plain(["operator", "kind", *numbers, "mostly", "by"], numbers=numbers)
    quiet = 0
    for detail in estimate.mpc:
        if not detail.online.rounds:
            quiet += 1
            continue
        table.add_row(
            escape(detail.name),
            escape(detail.kind),
            *_figures(detail.online, detail.offline, detail.latency_s),
            detail.dominant,
            ", ".join(detail.calls) or "reveal",
        )
    table.add_section()
    for item in estimate.kinds:
        table.add_row(
            f"all {item.operators}" if item.operators > 1 else "the only one",
            escape(item.kind),
            *_figures(item.online, item.offline, item.latency_s),
        )
    table.add_section()
    table.add_row("one image", "", *_figures(estimate.online, estimate.offline, estimate.latency_s))
    others = [
        f"{quantity(seconds, 's')} where a round is read as '{reading}'"
        for reading, seconds in estimate.readings.items()
    ]
    setup = estimate.setup
    return titled(
        f"{estimate.model} on {estimate.target}: {estimate.protocol} on {estimate.network}, "
        f"{estimate.parties} parties, each of which exchanges",
        table,
        f"{quiet} operators exchange nothing: local, public, or the owner's alone.",
        f"online by party: {conventions(estimate.online)}",
        f"offline: {count(estimate.offline.bytes_received)} bytes from the dealer to one party"
        if estimate.dealer != "none"
        else "offline: none",
        *(
            [f"once, before the first image: {setup.rounds} rounds, {conventions(setup)}"]
            if setup.rounds
            else []
        ),
        f"latency: {'; '.join(others)}; {quantity(estimate.compute_s, 's')} of it compute",
        *(f"warning: {text}" for text in estimate.warnings),
        *(f"no protocol: {name}: {reason}" for name, reason in estimate.unmapped),
        "assumptions (their sources in full: --json):",
        *(f"  {item.text} ({item.source.split(':')[0]})" for item in estimate.assumptions),
    )


def _figures(online: Traffic, offline: Traffic, latency_s: float) -> list[str]:
    return [
        count(online.rounds),
        quantity(online.bytes_sent, "B"),
        quantity(online.bytes_received, "B"),
        quantity(offline.bytes_received, "B") if offline.bytes_received else "-",
        quantity(latency_s, "s"),
    ]


def cost_table(
    function: str,
    shapes: Sequence[tuple[int, ...]],
    protocol: Protocol,
    traffic: OperatorTraffic,
) -> Group:
    """What one function makes one party exchange."""
    numbers = ["rounds", "bytes sent", "bytes received"]
    table = plain(["one party", *numbers], numbers=numbers)
    for name, part in (("online", traffic.online), ("offline", traffic.offline)):
        table.add_row(name, count(part.rounds), count(part.bytes_sent), count(part.bytes_received))
    sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
    return titled(
        f"{function} of {sizes} by {protocol.name}, {protocol.parties} parties",
        table,
        f"online, {conventions(traffic.online)}",
        f"dealer: {_DEALERS[protocol.dealer]}",
        protocol.source,
    )


_DEALERS = {
    "ttp": "a third party; the party that receives most is shown, streamed ahead in no round",
    "tfp": "the first party, for benchmarks only; nothing is sent",
    "none": "none",
}


def cost_record(
    function: str,
    shapes: Sequence[tuple[int, ...]],
    protocol: Protocol,
    options: MpcOptions,
    traffic: OperatorTraffic,
) -> dict[str, object]:
    """The same for JSON; ``rounds``, ``bytes_sent`` and ``bytes_received`` are online."""
    return {
        "function": function,
        "shapes": [list(shape) for shape in shapes],
        "protocol": protocol.name,
        "parties": protocol.parties,
        "dealer": protocol.dealer,
        "options": options.model_dump(exclude_none=True),
        "rounds": traffic.online.rounds,
        "bytes_sent": traffic.online.bytes_sent,
        "bytes_received": traffic.online.bytes_received,
        "crypten_sent_and_received": traffic.online.sent_and_received,
        "spu_sent": traffic.online.bytes_sent,
        "online": asdict(traffic.online),
        "offline": asdict(traffic.offline),
        "source": protocol.source,
    }


def protocols_table(protocols: Sequence[Protocol]) -> Group:
    """The protocols, their parameters, and what they have figures for."""
    numbers = ["parties", "ring", "fraction"]
    table = plain(["name", *numbers, "dealer", "what", "options"], numbers=numbers)
    for item in protocols:
        choices = ", ".join(name for name, values in item.choices.items() if values)
        table.add_row(
            item.name,
            str(item.parties),
            f"{item.ring_bits} bits",
            f"{item.fraction_bits} bits",
            " or ".join(item.dealers),
            escape(item.title),
            choices,
        )
    lines = [f"{item.name}: {len(item.functions())} functions; {item.source}" for item in protocols]
    return titled("Protocols of secure inference", table, *lines)


def networks_table(networks: Sequence[Network]) -> Group:
    """The networks, with who says so."""
    numbers = ["bandwidth", "ping"]
    table = plain(["name", *numbers, "round", "source"], numbers=numbers)
    for item in networks:
        table.add_row(
            item.name,
            quantity(item.bandwidth_bit_s * item.efficiency, "bit/s"),
            quantity(item.ping_s, "s"),
            item.reading,
            escape(item.source),
        )
    return titled(
        "Networks between the parties",
        table,
        "round: overlap takes half the ping, acknowledged the whole; estimates tell both.",
    )
