"""The steps of a mixture of experts: the gate's scores, and two products for each expert on the
tokens in its queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...models.integer_model import IntegerModel, IntegerOperator
from ..placement import Rows, ceil_div
from .core import DebugMemory
from .counters import Counter
from .draft import Draft, Ready
from .instruction import Destination, Product, Source
from .linear_steps import linear_product

__all__ = ["Expert", "expert_operators", "experts_of", "gate", "mixture"]


@dataclass(frozen=True)
class Expert:
    """The operators of one expert: Linear, Gelu, Linear."""

    fc1: IntegerOperator
    activation: IntegerOperator
    fc2: IntegerOperator


def experts_of(model: IntegerModel, operator: IntegerOperator) -> list[Expert]:
    """The experts of the Mixture ``operator``, in order."""
    experts = []
    for name in operator.inputs[2:]:
        fc2 = model.operator(name)
        activation = model.operator(fc2.inputs[0])
        experts.append(Expert(model.operator(activation.inputs[0]), activation, fc2))
    return experts


def expert_operators(model: IntegerModel) -> set[str]:
    """Names of all Linears that belong to an expert: the Mixture makes their steps."""
    return {
        item.name
        for operator in model.operators
        if operator.kind == "Mixture"
        for expert in experts_of(model, operator)
        for item in (expert.fc1, expert.fc2)
    }


def gate(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """The scores of all experts, to the softmax and the router."""
    tokens, experts = operator.output
    draft.need("experts", experts)
    draft.need("tokens", tokens)
    item = Product(destination=Destination.GATE, banks=1, top=int(reader.attributes["k"]))
    linear_product(draft, operator, item)


def mixture(draft: Draft, operator: IntegerOperator) -> None:
    """Expert by expert, ascending: hidden activations in the order of the queue, then shares of the
    tokens added to the stream. An expert without tokens costs neither its weights nor a product.
    """
    machine = draft.machine
    tokens, width = operator.output
    route = draft.model.operator(operator.inputs[1])
    experts = experts_of(draft.model, operator)
    tiles = ceil_div(width, machine.cols)
    last = operator is draft.model.operators[-1]
    if last:
        draft.need("results", tokens * tiles * machine.cols)
    hidden = max(expert.activation.output[1] for expert in experts)
    place = draft.place(operator.name, tokens, 1, hidden)
    begun = len(draft.steps)
    for index, expert in enumerate(experts, 1):
        factor = expert.activation.dyadic("output")
        inside = Rows(place.base, draft.rows(tokens, 1, expert.fc1.output[1]).pitch, tokens, 1,
                      expert.fc1.output[1])  # fmt: skip
        linear_product(
            draft,
            expert.fc1,
            Product(
                destination=Destination.GELU,
                dst_base=inside.base,
                dst_stride=inside.pitch,
                banks=1,
                multiplier=factor.multiplier,
                shift=factor.shift,
                expert=index,
                gather=1,
            ),
            gate=route.name,
        )
        draft.places[expert.activation.name] = inside
        draft.ready[expert.activation.name] = Ready(Counter.DRAINED, 0, Source.TOKEN)
        linear_product(
            draft,
            expert.fc2,
            Product(
                destination=Destination.RESIDUAL,
                dst_stride=tiles,
                banks=1,
                expert=index,
                scatter=1,
                relative=1,
                results=tokens * tiles * machine.cols if last else 0,
            ),
            gate=route.name,
        )
    draft.arena.free(operator.name)
    draft.queued_rows(route, begun)
    done = draft.counts[Counter.DRAINED]
    draft.ready[operator.name] = Ready(Counter.DRAINED, done, Source.TOKEN, together=True)
    draft.boundary(operator.name, DebugMemory.RESIDUAL, Rows(0, tiles, tokens, 1, width))
