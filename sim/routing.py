"""Which expert gets how many tokens: of the actual images, or spread evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import VitruviusError
from ..hwgen.core.counters import Counter
from ..hwgen.core.program import Program

__all__ = ["Routing", "check_routing", "even_routing", "fetch_gates", "routing_of"]

Routing = Mapping[str, Sequence[int]]
"""Tokens in the queue of each expert, by the name of the Gate that chooses them."""


def even_routing(program: Program) -> Routing:
    """Queues of equal lengths, or one more token in the first ones: what is assumed of an image
    that nobody has looked at.
    """
    return {
        mixture.gate: [
            mixture.rows // mixture.experts + (index < mixture.rows % mixture.experts)
            for index in range(mixture.experts)
        ]
        for mixture in program.mixtures
    }


def routing_of(program: Program, images: Tensor, task: int = 0) -> list[Routing]:
    """The queues of each of the float ``images`` [n, C, H, W] with the gates of ``task``, by the
    integer model.
    """
    if not program.mixtures:
        return [{} for _ in images]
    chosen = program.model.for_task(task).routing(images)
    lengths = {
        mixture.gate: torch.nn.functional.one_hot(
            chosen[mixture.gate].experts, mixture.experts
        ).sum((1, 2))
        for mixture in program.mixtures
    }
    return [
        {gate: counts[index].tolist() for gate, counts in lengths.items()}
        for index in range(len(images))
    ]


def check_routing(program: Program, routing: Sequence[Routing], images: int) -> None:
    """Raises VitruviusError for a routing that ``images`` images of the program cannot have."""
    if len(routing) != images:
        raise VitruviusError(f"routing: expected that of {images} images, got {len(routing)}")
    for mixture in program.mixtures:
        for queues in routing:
            lengths = queues.get(mixture.gate, ())
            fit = all(0 <= length <= mixture.tokens for length in lengths)
            if len(lengths) != mixture.experts or not fit or sum(lengths) != mixture.rows:
                raise VitruviusError(
                    f"routing of '{mixture.gate}': expected {mixture.experts} queues of at most "
                    f"{mixture.tokens} tokens, {mixture.rows} in all, got {list(lengths)}"
                )


def fetch_gates(program: Program) -> list[str]:
    """The Gate that each transfer of an image depends on, "" if none."""
    readers = {
        step.instruction.start_threshold: step.gate
        for step in program.steps
        if step.instruction.start_wait is Counter.FETCHED
    }
    return [readers.get(number, "") for number in range(1, len(program.fetches) + 1)]
