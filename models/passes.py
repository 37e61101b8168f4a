"""The order of the passes that bring every way of writing a transformer to one form.

None changes the graph it is given. ``raise_graph`` runs them all.
"""

from __future__ import annotations

from dataclasses import replace

from .attention_forms import straighten_attention
from .attention_products import absorb_transposes, fold_scales
from .attention_regions import find_regions
from .caches import raise_caches
from .editing import Edit, rebuilt
from .folding import fold_batch_norms, fold_channel_factors
from .graph import Graph
from .grouped_queries import write_as_views
from .kind import wholes
from .mixture import find_mixtures, raise_gates
from .scans import raise_scans, roll_stacks
from .written_out import merge_twins, recognise_activations, recognise_norms, recognise_softmax

__all__ = ["drop_identities", "merge_views", "raise_attention", "raise_graph", "remove_dead"]


def raise_graph(graph: Graph) -> Graph:
    """Written-out norms and activations to their kinds, what is constant per channel into the
    weights, attention to its form, the choice of experts to a gate, regions found.
    """
    for apply in (
        remove_dead,
        drop_identities,
        merge_twins,
        raise_scans,
        roll_stacks,
        recognise_activations,
        recognise_norms,
        recognise_softmax,
        fold_batch_norms,
        raise_caches,
        raise_attention,
        fold_channel_factors,
        raise_gates,
    ):
        graph = apply(graph)
    return find_mixtures(find_regions(graph))


def raise_attention(graph: Graph) -> Graph:
    """Transposes, scales and views into the products, one mask, dead operators out, regions
    found.
    """
    for apply in (
        absorb_transposes,
        fold_scales,
        write_as_views,
        straighten_attention,
        merge_views,
    ):
        graph = apply(graph)
    return find_regions(remove_dead(graph))


def drop_identities(graph: Graph) -> Graph:
    """A sum with zeros (a mask that keeps everything) and a product with ones are nothing."""
    edit = Edit(graph)
    neutral: dict[tuple[str, float], bool] = {}
    for op in edit.operators():
        if op.kind not in ("Add", "Mul"):
            continue
        unit = 0.0 if op.kind == "Add" else 1.0
        op = edit.operator(op.name)
        for operand, other in (op.inputs, op.inputs[::-1]):
            held = edit.constant(other)
            if held is None or held.is_meta or edit.operator(operand).output != op.output:
                continue
            if (other, unit) not in neutral:
                neutral[other, unit] = bool((held == unit).all())
            if neutral[other, unit]:
                edit.redirect(op.name, operand)
                break
    return edit.graph()


def merge_views(graph: Graph) -> Graph:
    """A reshape of a reshape, or a permutation of a permutation, is one; what changes nothing is
    none.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit or op.kind != "View":
            continue
        op = edit.operator(op.name)
        above = edit.operator(op.inputs[0])
        what = op.attributes["op"]
        if above.kind == "View" and above.attributes["op"] == what and what != "expand":
            attributes = dict(op.attributes)
            if what == "permute":
                first = wholes(above.attributes, "dims")
                attributes["dims"] = tuple(first[place] for place in wholes(attributes, "dims"))
            op = replace(op, inputs=above.inputs, attributes=attributes)
            edit.put(op)
        source = edit.operator(op.inputs[0])
        if what == "permute":
            nothing = wholes(op.attributes, "dims") == list(range(len(op.output.shape)))
        else:
            nothing = what == "reshape" and source.output.shape == op.output.shape
        if nothing:
            edit.redirect(op.name, source.name)
    return edit.graph()


def remove_dead(graph: Graph) -> Graph:
    """Drops operators (other than inputs) that lead to no output, and tensors nobody names."""
    alive: set[str] = set()
    for op in reversed(graph.operators()):
        if op.kind in ("Output", "Input") or op.name in alive:
            alive.update((op.name, *op.inputs))
    kept = [op for op in graph.operators() if op.name in alive]
    used = {key for op in kept for key in op.tensors.values()}
    if len(kept) == len(graph.operators()) and used == graph.tensors.keys():
        return graph
    return rebuilt(graph, kept)
