"""A Program with its mixtures of experts in the order of tokens: the experts of one token after the
other, with weights fetched for it alone. For the cycle simulator: the hardware's programs cannot
depend on the image as this one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from ..hwgen.core.core import Target
from ..hwgen.core.counters import COUNTER_BITS, Counter, modular
from ..hwgen.core.instruction import Source
from ..hwgen.core.program import Fetch, NormStep, Program, Step
from .routing import Routing

__all__ = ["token_by_token"]


def token_by_token(program: Program, routing: Routing, *, prefetch: bool = True) -> Program:
    """``program`` for an image of this ``routing``. Which tokens an expert has is of no account for
    cycles, so queues are dealt out in order. An expert's matrices lie in the weight buffer behind
    those before, from its beginning again at its end. Without ``prefetch`` each waits for the
    product before its own.
    """
    steps: list[Step] = []
    fetches: list[Fetch] = []
    readers: list[int] = []  # of each fetch, the index of its step
    place = [0]  # of each old step the index of the first new one, and one more
    taken = 0  # old fetches that have a new one
    tokens = {mixture.gate: mixture.tokens for mixture in program.mixtures}
    for gate, group in groupby(program.steps, key=lambda step: step.gate):
        members = list(group)
        if not gate:
            for step in members:
                item = step.instruction
                if item.start_wait is Counter.FETCHED:
                    wanted = program.fetches[taken : item.start_threshold]
                    fetches += wanted
                    readers += [len(steps)] * len(wanted)
                    taken = item.start_threshold
                    item = replace(item, start_threshold=len(fetches))
                steps.append(replace(step, instruction=replace(item, final=0)))
                place.append(len(steps))
            continue
        free = 0
        for expert in _dealt(routing[gate], tokens[gate]):
            for step in members:
                item = step.instruction
                if item.expert != expert + 1:
                    continue
                fetch = program.fetches[item.start_threshold - 1]
                start = free if free + fetch.words <= program.machine.weight_words else 0
                free = start + fetch.words
                fetches.append(replace(fetch, destination=start))
                readers.append(len(steps))
                item = replace(
                    item,
                    tokens=1,
                    expert=0,
                    final=0,
                    b_base=start,
                    start_threshold=len(fetches),
                )
                steps.append(replace(step, instruction=item))
        # What waits within a mixture waits for products of the last expert.
        place += [len(steps) - left for left in reversed(range(len(members)))]
        taken = members[-1].instruction.start_threshold
    last = steps[-1]
    steps[-1] = replace(last, instruction=replace(last.instruction, final=1))
    waiting = _thresholds(fetches, readers, steps, prefetch=prefetch)
    totals = {**program.totals, Counter.ISSUED: len(steps), Counter.FETCHED: len(fetches)}
    return replace(
        program,
        steps=tuple(steps),
        fetches=tuple(
            replace(fetch, threshold=threshold)
            for fetch, threshold in zip(fetches, waiting, strict=True)
        ),
        norms=tuple(_moved(norm, place) for norm in program.norms),
        totals=totals,
    )


def _dealt(lengths: Sequence[int], tokens: int) -> list[int]:
    """The experts that run, token by token: with queues of these ``lengths``, none of which has a
    token twice.

    >>> _dealt([2, 3, 1], tokens=3)
    [0, 1, 0, 1, 1, 2]
    """
    entries = [expert for expert, length in enumerate(lengths) for _ in range(length)]
    return [entry for token in range(tokens) for entry in entries[token::tokens]]


def _thresholds(
    fetches: Sequence[Fetch], readers: Sequence[int], steps: Sequence[Step], *, prefetch: bool
) -> list[int]:
    """Products issued before each transfer may begin: all that read what it overwrites, of the
    image before too; or all before its own.
    """
    if not prefetch:
        return list(readers)
    products = len(steps)
    start = np.array([fetch.destination for fetch in fetches])
    end = start + np.array([fetch.words for fetch in fetches])
    of_image = np.array([fetch.target is Target.IMAGE for fetch in fetches])
    reader = np.array(readers)
    reader[of_image] = max(
        index for index, step in enumerate(steps) if step.instruction.a_source is Source.IMAGE
    )
    found = []
    for index in range(len(fetches)):
        over = (start < end[index]) & (start[index] < end) & (of_image == of_image[index])
        last = reader - products * (np.arange(len(fetches)) >= index)
        found.append(int(last[over].max()) + 1)
    return found


def _moved(norm: NormStep, place: Sequence[int]) -> NormStep:
    """``norm``, which waits for so many of the old products, waiting for the same ones."""
    wanted = norm.instruction.start_threshold
    if wanted >> (COUNTER_BITS - 1):
        wanted -= 1 << COUNTER_BITS
    old = len(place) - 1
    images, within = divmod(wanted, old)
    threshold = modular(images * place[-1] + place[within])
    return replace(norm, instruction=replace(norm.instruction, start_threshold=threshold))
