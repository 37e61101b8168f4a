"""Passes Graph to Graph that find mixtures of experts: the choice of experts becomes one Gate, and
each mixture a region.

None changes the graph it is given.
"""

from __future__ import annotations

from math import prod

from torch import Tensor

from .editing import Edit
from .evaluate import Attribute
from .graph import Graph, MixtureRegion, Operator

__all__ = ["find_mixtures", "no_mixture", "raise_gates", "routed_macs"]

_ACTIVATIONS = frozenset(
    ("Gelu", "QuickGelu", "Relu", "Relu6", "Silu", "HardSwish", "Sigmoid", "Tanh")
)


def raise_gates(graph: Graph) -> Graph:
    """The k largest values scattered back to their places in zeros are a Gate."""
    edit = Edit(graph)
    for op in graph.operators():
        if found := _gate(graph, op):
            scores, k = found
            edit.redirect(op.name, edit.add("Gate", [scores], {"k": k}, like=op, label="route"))
    return edit.graph()


def find_mixtures(graph: Graph) -> Graph:
    """One region for each Gate whose weights, one by one, multiply the outputs of as many experts
    that are then added up.

    The gate must be a Linear and a softmax, an expert a Linear, an activation and a Linear, and all
    must read the same operator. Anything else stays as its parts, without a region.
    """
    found = [_region(graph, op) for op in graph.operators() if op.kind == "Gate"]
    if not found:
        return graph
    return Graph(
        graph.name,
        graph.operators(),
        graph.tensors,
        regions=graph.regions,
        mixtures=[region for region in found if isinstance(region, MixtureRegion)],
        unmapped=graph.unmapped,
        batched=graph.batched,
    )


def no_mixture(graph: Graph, gate: Operator) -> str:
    """Why what ``gate`` chooses is no mixture of experts, with the first expert that is none; empty
    if it is one.
    """
    region = _region(graph, gate)
    return region if isinstance(region, str) else ""


def routed_macs(graph: Graph) -> int:
    """Multiply-accumulates of one image when only the chosen experts run: k of E of the experts'
    products in every mixture, everything else whole.
    """
    total = sum(op.macs for op in graph.operators())
    for region in graph.mixtures:
        names = [name for expert in region.experts for name in expert]
        dense = sum(graph.operator(name).macs for name in names)
        total -= dense - dense * region.k // len(region.experts)
    return total


def _gate(graph: Graph, op: Operator) -> tuple[str, int] | None:
    """What is gated and how many stay, when ``op`` scatters a top-k into zeros."""
    if op.kind != "Scatter" or op.attributes["dim"] != -1:
        return None
    base, index, source = (graph.operator(name) for name in op.inputs)
    if base.kind != "Constant" or not _zeros(graph.tensors[base.tensors["value"]]):
        return None
    if (index.kind, source.kind) != ("TopK", "TopK") or index.inputs != source.inputs:
        return None
    results = index.attributes["result"], source.attributes["result"]
    same = index.attributes["k"] == source.attributes["k"]
    last = index.attributes["dim"] == source.attributes["dim"] == -1
    scores = graph.operator(source.inputs[0])
    if results != ("indices", "values") or not same or not last or scores.output != op.output:
        return None
    return scores.name, _whole(source.attributes["k"])


def _region(graph: Graph, route: Operator) -> MixtureRegion | str:
    """The mixture that ``route`` chooses the experts of, or why it has not the form of one."""
    count = route.output.shape[-1]
    if count < 2:
        return "one expert leaves nothing to choose"
    softmax = graph.operator(route.inputs[0])
    if softmax.kind != "Softmax" or softmax.attributes["dim"] != -1:
        return f"'{softmax.name}' is no softmax over the last axis"
    gate = graph.operator(softmax.inputs[0])
    if gate.kind != "Linear":
        return f"'{gate.name}' is {gate.kind}, expected a Linear that gives the scores"
    source = gate.inputs[0]
    weighted: dict[int, Operator] = {}
    for reader in graph.consumers(route.name):
        place = _place(reader, len(route.output.shape) - 1)
        product = _product(graph, reader)
        if place is None or product is None or place in weighted:
            return f"{reader.kind} '{reader.name}' does not pick one weight for one product"
        weighted[place] = product
    if missing := sorted(set(range(count)) - set(weighted)):
        return f"the weight of expert {missing[0]} scales no output"
    experts = []
    for place in range(len(weighted)):
        expert = _expert(graph, weighted[place], route, source)
        if expert is None:
            product = weighted[place]
            whole = [n for n in product.inputs if graph.operator(n).output == product.output]
            return (
                f"expected of expert {place}, which ends in '{(whole or [product.name])[0]}', a "
                f"Linear that reads '{source}' as the gate does, an activation and a Linear, each "
                "read once"
            )
        experts.append(expert)
    combine = _sum(graph, [op.name for op in weighted.values()])
    if combine is None:
        return "the outputs of its experts are not added up, each of them once"
    return MixtureRegion(
        gate=gate.name,
        softmax=softmax.name,
        route=route.name,
        experts=tuple(experts),
        combine=combine,
        source=source,
        tokens=prod(route.output.shape[:-1]),
        k=_whole(route.attributes["k"]),
    )


def _place(select: Operator, last: int) -> int | None:
    """Which weight ``select`` picks from the last axis."""
    if select.kind != "Select" or select.attributes["dim"] not in (last, -1):
        return None
    if select.attributes["op"] == "select":
        return _whole(select.attributes["index"])
    start, stop = _whole(select.attributes["start"]), _whole(select.attributes["stop"])
    return start if stop == start + 1 else None


def _product(graph: Graph, select: Operator) -> Operator | None:
    """The multiplication that a picked weight goes into, perhaps through a View that gives it back
    its axis.
    """
    while len(readers := graph.consumers(select.name)) == 1:
        if readers[0].kind == "Mul":
            return readers[0]
        if readers[0].kind != "View" or readers[0].output.shape[-1] != 1:
            return None
        select = readers[0]
    return None


def _expert(
    graph: Graph, product: Operator, route: Operator, source: str
) -> tuple[str, str, str] | None:
    """Linear, activation, Linear from ``source`` to the product, each read by the next only."""
    for name in product.inputs:
        last = graph.operator(name)
        if last.kind != "Linear" or len(graph.consumers(name)) != 1:
            continue
        act = graph.operator(last.inputs[0])
        if act.kind not in _ACTIVATIONS or len(graph.consumers(act.name)) != 1:
            continue
        first = graph.operator(act.inputs[0])
        if first.kind != "Linear" or len(graph.consumers(first.name)) != 1:
            continue
        # the weight [..., 1] goes along the output's channels, nothing else is broadcast
        if first.inputs == (source,) and product.output == last.output:
            return first.name, act.name, last.name
    return None


def _sum(graph: Graph, terms: list[str]) -> str | None:
    """The Add that holds the sum of all ``terms``, each used once, in whatever order."""
    open_terms = set(terms)
    while len(open_terms) > 1:
        for name in sorted(open_terms):
            readers = graph.consumers(name)
            if len(readers) != 1 or readers[0].kind != "Add":
                return None
            add = readers[0]
            if set(add.inputs) <= open_terms and len(set(add.inputs)) == 2:
                open_terms -= set(add.inputs)
                open_terms.add(add.name)
                break
        else:
            return None
    (combine,) = open_terms
    return combine if graph.operator(combine).kind == "Add" else None


def _whole(value: Attribute) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _zeros(held: Tensor) -> bool:
    """Whether all values are 0, as far as they are known."""
    return not held.is_meta and not bool(held.any())
