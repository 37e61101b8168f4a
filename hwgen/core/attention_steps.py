"""The steps of Attention: for each head the scores, then the sum of the values that they weigh."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...models.integer_model import IntegerOperator
from ...models.ivit_operators import dyadic_of
from ..placement import ceil_div
from .core import DebugMemory
from .counters import Counter, modular
from .draft import Draft, Ready, waiting
from .instruction import Destination, Product, Source

__all__ = ["attention", "shift_attention"]


@dataclass(frozen=True)
class _Factors:
    """What an attention needs beside its operands, in either scheme: how many bytes a softmax
    weight takes, and the fields of both products that are its own.
    """

    planes: int
    score: Product
    apply: Product


def attention(draft: Draft, operator: IntegerOperator) -> None:
    """Two products a head: queries times keys, softmax weights times values. The scores of the
    next head run while the softmax of this one ends; its weights lie in two halves by turns.
    """
    codes = draft.model.attention_codes(operator)
    _attention(
        draft,
        operator,
        _Factors(
            planes=1,
            score=Product(multiplier=codes.score.multiplier, shift=codes.score.shift),
            apply=Product(multiplier=codes.apply.multiplier, shift=codes.apply.shift),
        ),
    )


def shift_attention(draft: Draft, operator: IntegerOperator) -> None:
    """As `attention`, in scheme ivit: the weights have two bytes, so they take twice the words."""
    score, apply = dyadic_of(operator, "score"), dyadic_of(operator, "apply")
    _attention(
        draft,
        operator,
        _Factors(
            planes=2,
            score=Product(
                multiplier=score.multiplier,
                shift=score.shift,
                exp_step=int(operator.attributes["a"]),
                octaves=int(operator.attributes["octaves"]),
            ),
            apply=Product(multiplier=apply.multiplier, shift=apply.shift, planes=1),
        ),
    )


def _attention(draft: Draft, operator: IntegerOperator, factors: _Factors) -> None:
    machine = draft.machine
    tokens, features = operator.output
    heads = int(operator.attributes["heads"])
    head_dim = features // heads
    query, key, value = operator.inputs[:3]
    queries = draft.places[query]
    place = draft.place(operator.name, tokens, heads, head_dim)
    key_rows, value_tiles = ceil_div(head_dim, machine.lanes), ceil_div(head_dim, machine.cols)
    weights = draft.rows(tokens, 1, tokens)
    planes = factors.planes
    draft.need("attention", min(heads, 2) * tokens * weights.pitch)
    draft.need("tokens", tokens)

    def product(
        head: int, reduction: int, outputs: int, operand: str, item: Product, planes: int = 1
    ) -> Product:
        """Of all tokens, ``reduction`` elements a row, with all rows of ``operand`` complete."""
        words, tiles = ceil_div(reduction, machine.depth), ceil_div(outputs, machine.cols)
        draft.need("features", planes * words * machine.depth)
        return replace(
            item,
            tokens=tokens,
            token_base=head % 2 * tokens,
            words=planes * words,
            last_lanes=reduction - (words - 1) * machine.depth,
            tiles=tiles,
            group_tiles=tiles,
            last_count=outputs - (tiles - 1) * machine.cols,
            banks=1,
            start_wait=Counter.DRAINED,
            start_threshold=modular(draft.ready[operand].first + tokens - 1),
        )

    def append(head: int, name: str, item: Product, rows: Ready) -> Ready:
        macs = tokens * tokens * head_dim
        name = f"{operator.name}.head{head}.{name}"
        return draft.product(name, operator, waiting(item, rows), macs)

    def scores(head: int) -> Ready:
        """Returns when the softmax weights can be read."""
        item = replace(
            product(head, head_dim, tokens, key, factors.score),
            destination=Destination.SCORE,
            a_base=draft.words(queries.base + head * queries.group_pitch),
            a_stride=draft.words(queries.pitch),
            b_source=Source.KEY,
            b_base=draft.words(head * key_rows),
            b_tile_stride=draft.words(heads * key_rows),
            b_word_stride=1,
            dst_stride=weights.pitch,
        )
        first = draft.counts[Counter.WEIGHED] + 1
        append(head, "scores", item, draft.ready[query])
        return Ready(Counter.WEIGHED, first, Source.ATTENTION)

    def apply(head: int, weighed: Ready) -> Ready:
        item = replace(
            product(head, tokens, head_dim, value, factors.apply, planes),
            destination=Destination.APPLY,
            a_base=planes * draft.words(head % 2 * tokens * weights.pitch),
            a_stride=planes * draft.words(weights.pitch),
            b_source=Source.VALUE,
            b_base=head * value_tiles,
            b_tile_stride=1,
            b_word_stride=heads * value_tiles,
            dst_base=place.base + head * place.group_pitch,
            dst_stride=place.pitch,
            group_stride=place.group_pitch,
        )
        return append(head, "apply", item, weighed)

    weighed = [scores(0)]
    for head in range(heads):
        if head + 1 < heads:
            weighed.append(scores(head + 1))
        draft.ready[operator.name] = apply(head, weighed[head])
    draft.boundary(operator.name, DebugMemory.TOKEN, place)
