"""What a model costs as secure inference: rounds, bytes and seconds, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...models.graph import Graph, Operator
from ..estimate import Assumption, Estimate, OperatorCost
from .calls import Refusal
from .compute import compute_model
from .network import READINGS
from .operators import calls, mpc_traffic, refusals, setup_traffic
from .secrecy import Knowledge, knowledge
from .target import MpcTarget, load_mpc
from .traffic import OperatorTraffic, Traffic

__all__ = ["KindTotal", "MpcDetail", "MpcEstimate", "estimate_mpc"]


@dataclass(frozen=True)
class MpcDetail:
    """What one operator costs a party.

    calls: functions of the protocol; online: with the image at hand; offline: what the dealer sends
    the party that receives most. rounds_s, transfer_s, compute_s add up to latency_s, in the
    network's own reading of a round; dominant: the largest of the three, or empty.
    """

    name: str
    kind: str
    calls: tuple[str, ...]
    online: Traffic
    offline: Traffic
    rounds_s: float
    transfer_s: float
    compute_s: float
    latency_s: float
    dominant: str
    reason: str = ""


@dataclass(frozen=True)
class KindTotal:
    """All operators of one kind together."""

    kind: str
    operators: int
    online: Traffic
    offline: Traffic
    latency_s: float


@dataclass(frozen=True)
class MpcEstimate(Estimate):
    """The record of every backend, with what secure inference adds in ``mpc``, one by operator.

    There is no clock, no array and no energy: these fields are 0. readings: the whole latency by
    how a round is read. setup: what is exchanged once, before the first image.
    """

    mpc: tuple[MpcDetail, ...] = ()
    kinds: tuple[KindTotal, ...] = ()
    protocol: str = ""
    network: str = ""
    parties: int = 2
    dealer: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    online: Traffic = Traffic()
    offline: Traffic = Traffic()
    setup: Traffic = Traffic()
    readings: Mapping[str, float] = field(default_factory=dict)
    reading: str = ""
    compute_s: float = 0.0


def estimate_mpc(graph: Graph, target: str | MpcTarget) -> MpcEstimate:
    """Rounds, bytes and latency of one image of ``graph`` on a target such as ``"mpc:semi2k-wan"``.

    Operators run one after another. What the protocol cannot do is in ``unmapped`` with reason and
    advice, and costs nothing here.

    Raises VitruviusError for an unknown target or options that the protocol does not have.
    """
    chosen = load_mpc(target) if isinstance(target, str) else target
    protocol, network, options = chosen.protocol, chosen.network, chosen.options
    graph = chosen.prepared(graph)
    traffic = mpc_traffic(graph, protocol, options, skip_unmapped=True)
    refused = refusals(graph, protocol, options)
    functions, known = calls(graph, options), knowledge(graph)
    details, rows = [], []
    for op in graph.operators():
        item = functions[op.name]
        names = () if isinstance(item, Refusal) else tuple(call.function for call in item)
        detail = _detail(op, traffic[op.name], names, known[op.name], refused, chosen)
        details.append(detail)
        rows.append(_row(op, detail, protocol.source))
    online = sum((detail.online for detail in details), Traffic())
    offline = sum((detail.offline for detail in details), Traffic())
    compute_s = sum(detail.compute_s for detail in details)
    setup = setup_traffic(graph, protocol, options)
    return MpcEstimate(
        model=graph.name,
        target=chosen.name,
        machine=f"{protocol.name}, {protocol.parties} parties",
        cycles=0,
        latency_s=sum(row.latency_s for row in rows),
        energy_j=0.0,
        clock_hz=0.0,
        macs=sum(row.macs for row in rows),
        utilisation=0.0,
        operators=tuple(rows),
        assumptions=_assumptions(chosen),
        traffic_bytes={
            "sent": online.bytes_sent,
            "received": online.bytes_received,
            "from the dealer": offline.bytes_received,
        },
        warnings=_warnings(refused, details),
        unmapped=tuple(refused.items()),
        mpc=tuple(details),
        kinds=_kinds(details),
        protocol=protocol.name,
        network=network.name,
        parties=protocol.parties,
        dealer=protocol.dealer,
        options=chosen.settings.record(),
        online=online,
        offline=offline,
        setup=setup,
        readings={reading: network.latency_s(online, reading) + compute_s for reading in READINGS},
        reading=network.reading,
        compute_s=compute_s,
    )


def _detail(
    op: Operator,
    traffic: OperatorTraffic,
    functions: tuple[str, ...],
    known: Knowledge,
    refused: Mapping[str, str],
    target: MpcTarget,
) -> MpcDetail:
    network, online = target.network, traffic.online
    reason = "none: local"
    compute_s = 0.0
    if op.name in refused:
        reason = "none: no protocol"
    elif op.kind in ("Input", "Constant"):
        reason = "none: shared without traffic"
    elif known is not Knowledge.SECRET:
        reason = f"none: {'computed by the owner' if known is Knowledge.OWNER else 'public'}"
    else:
        compute_s = compute_model(target.protocol).seconds(op, online)
    rounds_s = online.rounds * network.round_s()
    parts = {"rounds": rounds_s, "bytes": network.transfer_s(online), "compute": compute_s}
    total = sum(parts.values())
    dominant = max(parts, key=parts.__getitem__) if total and online.rounds else ""
    return MpcDetail(
        name=op.name,
        kind=op.kind,
        calls=functions if known is Knowledge.SECRET and op.name not in refused else (),
        online=online,
        offline=traffic.offline,
        rounds_s=rounds_s,
        transfer_s=parts["bytes"],
        compute_s=compute_s,
        latency_s=total,
        dominant=dominant,
        reason="" if dominant else reason,
    )


def _row(op: Operator, detail: MpcDetail, source: str) -> OperatorCost:
    return OperatorCost(
        name=op.name,
        kind=op.kind,
        cycles=0,
        latency_s=detail.latency_s,
        energy_j=0.0,
        macs=op.macs,
        utilisation=0.0,
        on_chip_bytes=0,
        off_chip_bytes=detail.online.sent_and_received,
        bottleneck=detail.dominant or detail.reason,
        source=source if detail.calls else "formula: nothing is exchanged",
    )


def _kinds(details: list[MpcDetail]) -> tuple[KindTotal, ...]:
    """Totals by kind, the slowest first; kinds that exchange nothing are left out."""
    found: dict[str, KindTotal] = {}
    for detail in details:
        if not detail.online.rounds:
            continue
        old = found.get(detail.kind, KindTotal(detail.kind, 0, Traffic(), Traffic(), 0.0))
        found[detail.kind] = KindTotal(
            detail.kind,
            old.operators + 1,
            old.online + detail.online,
            old.offline + detail.offline,
            old.latency_s + detail.latency_s,
        )
    return tuple(sorted(found.values(), key=lambda item: (-item.latency_s, item.kind)))


def _warnings(refused: Mapping[str, str], details: list[MpcDetail]) -> tuple[str, ...]:
    if not refused:
        return ()
    kinds = sorted({detail.kind for detail in details if detail.name in refused})
    return (
        f"totals are without {len(refused)} operators that have no protocol: {', '.join(kinds)}",
    )


def _assumptions(target: MpcTarget) -> tuple[Assumption, ...]:
    protocol, network = target.protocol, target.network
    found = [
        Assumption(f"protocol {protocol.name}: {protocol.title}", protocol.source),
        Assumption(
            f"network {network.name}: {network.bandwidth_bit_s / 1e6:g} Mbit/s each way, "
            f"{network.efficiency:.0%} of it used, ping {network.ping_s * 1e3:g} ms",
            network.source,
        ),
        Assumption(
            f"a round takes {'half the' if network.reading == 'overlap' else 'the'} ping: "
            + (
                "both parties send at once"
                if network.reading == "overlap"
                else "a party waits until its words are acknowledged"
            ),
            "assumed: the other reading is told beside it",
        ),
        Assumption(
            "rounds, bytes and compute of operators follow one another, nothing overlaps",
            "formula: rounds x time of a round + bytes one way / bandwidth + compute",
        ),
        Assumption(
            "the image and the weights are shared without traffic, from seeds that both have; the "
            "model's shape is public, its weights are secret",
            "formula: sim.mpc.secrecy",
        ),
        Assumption(
            {
                "ttp": "offline: a third party deals, one word for each element of a product to "
                "one party, streamed ahead",
                "tfp": "offline: the first party deals in the clear, for benchmarks only: no bytes",
                "none": "there is no dealer and nothing offline",
            }[protocol.dealer],
            "formula: CrypTen's providers" if protocol.name == "crypten" else protocol.source,
        ),
        compute_model(protocol).assumption(),
    ]
    found += [
        Assumption(f"{option} is the protocol's own: {text}", protocol.source)
        for option, text in sorted(protocol.own.items())
    ]
    if protocol.parties > 2:
        found.append(
            Assumption(
                f"bytes are the average of {protocol.parties} parties, rounds those of the busiest",
                protocol.source,
            )
        )
    settings = target.settings
    for what, value in (("softmax", settings.softmax), ("GELU", settings.gelu)):
        if value is not None:
            found.append(
                Assumption(
                    f"every {what} is replaced ({value}): another model, to be trained again",
                    "formula: sim.mpc.replacements",
                )
            )
    return tuple(found)
