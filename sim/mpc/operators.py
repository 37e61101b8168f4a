"""What every operator of a graph makes the parties exchange, under one protocol."""

from __future__ import annotations

from dataclasses import replace

from ...errors import VitruviusError
from ...models.graph import Graph
from .calls import Call, Refusal, Sight, calls_of
from .options import MpcOptions
from .protocols import Protocol
from .secrecy import Knowledge, heads_apart, knowledge, non_negative
from .traffic import NOTHING, OperatorTraffic, Traffic

__all__ = ["calls", "mpc_traffic", "refusals", "setup_traffic"]

_WORD = 8


def calls(graph: Graph, options: MpcOptions | None = None) -> dict[str, list[Call] | Refusal]:
    """The functions that every operator calls, by its name, or why there is no way."""
    chosen = MpcOptions() if options is None else options
    sight = Sight(graph, knowledge(graph), non_negative(graph), chosen)
    return {op.name: calls_of(op, sight) for op in graph.operators()}


def refusals(graph: Graph, protocol: Protocol, options: MpcOptions | None = None) -> dict[str, str]:
    """Operators that the protocol cannot do on secrets, with the reason and advice."""
    found: dict[str, str] = {}
    for name, item in calls(graph, options).items():
        if isinstance(item, Refusal):
            found[name] = item.reason
            continue
        missing = sorted({call.function for call in item} - protocol.functions().keys())
        if missing:
            kind = graph.operator(name).kind
            found[name] = (
                f"{kind}: protocol {protocol.name} has no figures for {', '.join(missing)}; replace"
                " it, or take protocol crypten"
            )
    return found


def mpc_traffic(
    graph: Graph,
    protocol: Protocol,
    options: MpcOptions | None = None,
    *,
    skip_unmapped: bool = False,
) -> dict[str, OperatorTraffic]:
    """What one party exchanges for one image, by operator; every operator is there, local ones with
    nothing.

    The image arrives as shares that take no traffic, weights likewise; outputs are opened to every
    party. ``skip_unmapped``: operators in ``refusals`` cost nothing here instead of being an error.

    Raises VitruviusError listing every operator that the protocol cannot do, or for options that it
    does not have.
    """
    chosen = MpcOptions() if options is None else options
    protocol.check(chosen)
    refused = refusals(graph, protocol, chosen)
    if refused and not skip_unmapped:
        listing = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise VitruviusError(f"{graph.name}: {len(refused)} operators have no protocol: {listing}")
    found = {}
    for name, item in calls(graph, chosen).items():
        op = graph.operator(name)
        if name in refused or isinstance(item, Refusal):
            found[name] = NOTHING
            continue
        heads = heads_apart(op, graph) if chosen.heads == "apart" else 1
        total = NOTHING
        for call in item:
            total += _of_heads(call, heads, protocol, chosen)
        if op.kind == "Output":
            total += _of_heads(Call("reveal", (op.output.shape,)), 1, protocol, chosen)
        found[name] = total
    return found


def setup_traffic(graph: Graph, protocol: Protocol, options: MpcOptions | None = None) -> Traffic:
    """What one party exchanges once, before the first image: the protocol's own set-up, and with
    ``weights="once"`` all masked weights in one round.
    """
    if options is None or options.weights != "once":
        return protocol.setup
    protocol.check(options)
    known = knowledge(graph)
    words = 0
    for op in graph.operators():
        if op.kind in ("Linear", "Conv2d", "ConvTranspose2d") and (
            known[op.name] is Knowledge.SECRET
        ):
            words += graph.tensors[op.tensors["weight"]].numel()
    opened = Traffic(1, _WORD * words, _WORD * words) if words else Traffic()
    return protocol.setup + opened


def _of_heads(call: Call, heads: int, protocol: Protocol, options: MpcOptions) -> OperatorTraffic:
    """Heads one after another: the rounds of one, as many times; the same bytes. A number without
    axes is one number, a tensor without elements nothing.
    """
    call = replace(call, shapes=tuple(shape or (1,) for shape in call.shapes))
    if any(0 in shape for shape in call.shapes):
        return NOTHING
    found = protocol.traffic(call.function, call.shapes, options)
    if heads == 1:
        return found
    one = tuple(
        (shape[0], 1, *shape[2:]) if len(shape) == 4 and shape[1] == heads else shape
        for shape in call.shapes
    )
    rounds = heads * protocol.traffic(call.function, one, options).online.rounds
    return replace(found, online=replace(found.online, rounds=rounds))
