"""How much of each buffer of a machine a program needs."""

from __future__ import annotations

from .draft import Draft
from .program import Usage

__all__ = ["buffer_usage"]


def buffer_usage(draft: Draft, *, results: int, fetches: int) -> tuple[Usage, ...]:
    """One entry for each buffer, for what ``draft`` holds, ``results`` results and ``fetches``
    transfers for an image.
    """
    machine, buffers = draft.machine, draft.machine.buffers
    lanes, cols, depth = machine.lanes, machine.cols, machine.depth
    arithmetic = machine.arithmetic

    def need(buffer: str) -> int:
        return draft.needs.get(buffer, 0)

    weight = max(matrix.words for matrix in draft.matrices)
    # words, words there are, bytes of a word
    words = {
        "token": (draft.arena.peak, machine.token_rows, lanes),
        "normal": (need("normal"), machine.normal_rows, lanes),
        "image": (need("image"), machine.image_words, depth),
        "key": (need("key"), machine.key_rows, lanes * cols),
        "value": (need("value"), machine.value_rows, cols * depth),
        "attention": (need("attention"), machine.attention_rows, lanes * arithmetic.weight_bytes),
        "residual": (need("residual"), machine.residual_rows, 2 * cols),
        "constant": (len(draft.constants), machine.constant_rows, 2 * cols),
        "weight": (weight, machine.weight_words, cols * depth),
        "column": (len(draft.columns), machine.column_words, arithmetic.column_bytes * cols),
        "norm_column": (
            len(draft.norm_columns),
            machine.norm_column_words,
            arithmetic.norm_column_bytes * cols,
        ),
    }
    tables = Usage("tables", len(draft.tables), buffers.tables, "tables")
    experts = Usage("experts", need("experts"), buffers.experts, "experts")
    in_bytes = (
        Usage(buffer, used * width, capacity * width, "bytes")
        for buffer, (used, capacity, width) in words.items()
    )
    return (
        *in_bytes,
        Usage("tokens", need("tokens"), buffers.tokens, "tokens"),
        Usage("features", need("features"), machine.slot_words * depth, "elements"),
        Usage("results", results, buffers.results, "elements"),
        *([tables] if tables.used else []),
        *([experts] if experts.used or experts.capacity else []),
        # with the LOOP
        Usage("products", len(draft.steps) + 1, buffers.products, "instructions"),
        Usage("norms", len(draft.norms) + 1, buffers.norms, "instructions"),
        Usage("fetches", fetches + 8, buffers.fetches, "transfers"),
    )
