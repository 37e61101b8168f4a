"""Groups of operators that hardware treats as one: attentions and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph

__all__ = ["AttentionRegion", "MixtureRegion", "attention_violations", "mixture_violations"]


@dataclass(frozen=True)
class AttentionRegion:
    """Scores, normaliser, apply: three operator names and the shape of one attention.

    ``tokens`` queries attend to ``keys`` keys in ``heads`` heads of ``head_dim``; ``scale``
    multiplies the scores. ``bias`` names the Add of a mask or position bias between scores and
    softmax, or is empty. An image is cut into ``windows`` parts that attend to themselves only:
    the leading axes of the scores hold ``windows * heads`` attentions for one image. The heads
    share ``kv_heads`` keys and values in equal groups; 0 means that each has its own.
    """

    scores: str
    softmax: str
    apply: str
    heads: int
    tokens: int
    head_dim: int
    scale: float
    keys: int
    bias: str = ""
    windows: int = 1
    kv_heads: int = 0


@dataclass(frozen=True)
class MixtureRegion:
    """One mixture of experts, written so that every expert runs on every token.

    The operator ``source`` gives [B, tokens, D] to the Linear ``gate`` and to every expert, a
    Linear, an activation and a Linear by name. ``softmax`` normalises the gate's scores, ``route``
    (a Gate) keeps the ``k`` largest weights of a token, and ``combine`` (an Add) yields the sum of
    the experts' outputs times their weights. Expert e is weighted by weight e.
    """

    gate: str
    softmax: str
    route: str
    experts: tuple[tuple[str, str, str], ...]
    combine: str
    source: str
    tokens: int
    k: int


def attention_violations(graph: Graph) -> Iterator[str]:
    """A region is MatMul, Softmax over the last axis, MatMul, one feeding the other."""
    names = {op.name for op in graph.operators()}
    for region in graph.regions:
        parts = (region.scores, region.softmax, region.apply) + (
            (region.bias,) if region.bias else ()
        )
        if unknown := [name for name in parts if name not in names]:
            yield f"region {region.scores}: unknown operators {', '.join(unknown)}"
            continue
        scores, softmax, apply = (graph.operator(name) for name in parts[:3])
        if (scores.kind, softmax.kind, apply.kind) != ("MatMul", "Softmax", "MatMul"):
            yield f"region {region.scores}: kinds {scores.kind}, {softmax.kind}, {apply.kind}"
            continue
        if softmax.inputs != (region.bias or region.scores,) or apply.inputs[0] != region.softmax:
            yield f"region {region.scores}: its operators do not follow each other"
        if scores.attributes["scale"] != region.scale:
            yield (
                f"region {region.scores}: scale {region.scale}, "
                f"operator {scores.attributes['scale']}"
            )
        if scores.output.shape[-2:] != (region.tokens, region.keys):
            yield (
                f"region {region.scores}: {region.tokens} x {region.keys}, "
                f"operator {scores.output.shape}"
            )
        attentions = prod(scores.output.shape[:-2])
        if attentions != region.windows * region.heads:
            yield (
                f"region {region.scores}: {region.windows} windows of {region.heads} heads, "
                f"operator {scores.output.shape}"
            )
        if region.kv_heads and region.heads % region.kv_heads:
            yield (
                f"region {region.scores}: {region.heads} heads share {region.kv_heads} keys, "
                "which is no equal groups"
            )
        if graph.operator(scores.inputs[0]).output.shape[-1] != region.head_dim:
            yield f"region {region.scores}: heads of {region.head_dim}, its queries are not"


def mixture_violations(graph: Graph) -> Iterator[str]:
    """A mixture is Linear, Softmax over the last axis, Gate, and one Linear, activation, Linear per
    weight, all reading one source; its sum is an Add.
    """
    names = {op.name for op in graph.operators()}
    for region in graph.mixtures:
        parts = [region.source, region.gate, region.softmax, region.route, region.combine]
        parts += [name for expert in region.experts for name in expert]
        place = f"mixture {region.gate}"
        if unknown := [name for name in parts if name not in names]:
            yield f"{place}: unknown operators {', '.join(unknown)}"
            continue
        gate, softmax, route, combine = (graph.operator(name) for name in parts[1:5])
        kinds = (gate.kind, softmax.kind, route.kind, combine.kind)
        if kinds != ("Linear", "Softmax", "Gate", "Add"):
            yield f"{place}: kinds {', '.join(kinds)}"
            continue
        chain = ((region.source,), (region.gate,), (region.softmax,))
        if (gate.inputs, softmax.inputs, route.inputs) != chain:
            yield f"{place}: its operators do not follow each other"
        if route.attributes["k"] != region.k:
            yield f"{place}: {region.k} experts per token, operator {route.attributes['k']}"
        if route.output.shape[-1] != len(region.experts):
            yield f"{place}: {len(region.experts)} experts, {route.output.shape[-1]} weights"
        if prod(route.output.shape[:-1]) != region.tokens:
            yield f"{place}: {region.tokens} tokens, operator {route.output.shape}"
        for first, act, last in region.experts:
            inner = graph.operator(first), graph.operator(act), graph.operator(last)
            if (inner[0].kind, inner[2].kind) != ("Linear", "Linear"):
                yield f"{place}: expert of kinds {', '.join(op.kind for op in inner)}"
            elif [op.inputs for op in inner] != [(region.source,), (first,), (act,)]:
                yield f"{place}: the operators of expert {first} do not follow each other"
