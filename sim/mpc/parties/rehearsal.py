"""The same motions as in a run, on shapes only: which masks a computation will need, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ....models.graph import Graph, Operator
from ..options import MpcOptions
from .correlated import Order, Request
from .evaluation import Evaluation
from .operators import Value
from .party import Party

__all__ = ["Rehearsal", "rehearsed"]


def rehearsed(
    graph: Graph, options: MpcOptions, fraction_bits: int, shifts: Mapping[str, int], runs: int
) -> Order:
    """The order to the dealer for ``runs`` images of ``graph``."""
    rehearsal = Rehearsal(fraction_bits)
    evaluation = _Remembering(graph, rehearsal, options, shifts=shifts)
    evaluation.prepare()
    evaluation.run([None] * len(graph.inputs))
    return Order(requests=tuple(rehearsal.requests), kept=tuple(rehearsal.kept), runs=runs)


class Rehearsal(Party):
    """A party without values: everything is on the meta device, nothing is sent. ``requests`` is
    the correlated randomness that the computation asks for, in order; ``kept`` the masks of weights
    that are opened once, with their shapes.
    """

    def __init__(self, fraction_bits: int) -> None:
        super().__init__(
            0,
            None,
            common=None,
            own=None,
            masks=None,
            fraction_bits=fraction_bits,
        )
        self.requests: list[Request] = []
        self.kept: list[tuple[str, tuple[int, ...]]] = []

    def public(self, value: float | Tensor) -> Tensor:
        return torch.empty(torch.as_tensor(value).shape, dtype=torch.int64, device="meta")

    def shared(self, values: Tensor | None, owner: int, shape: Sequence[int]) -> Tensor:
        return torch.empty(tuple(shape), dtype=torch.int64, device="meta")

    def keep_weights(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        self.rounds += bool(weights)
        self._opened.update(weights)
        self.kept += [(name, tuple(share.shape)) for name, share in weights]

    def _exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        self.rounds += 1
        return list(parts)

    def _prepared(self, request: Request) -> tuple[Tensor, ...]:
        self.requests.append(request)
        shapes = [*request.shapes, request.output]
        return tuple(torch.empty(shape, dtype=torch.int64, device="meta") for shape in shapes)

    def _words(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(tuple(shape), dtype=torch.int64, device="meta")

    def _own_bits(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(tuple(shape), dtype=torch.int64, device="meta")


class _Remembering(Evaluation):
    """An evaluation of shapes that goes through equal operators once: the layers of a transformer
    ask for the same masks.
    """

    def __init__(
        self, graph: Graph, party: Rehearsal, options: MpcOptions, *, shifts: Mapping[str, int]
    ) -> None:
        super().__init__(graph, party, options, shifts=shifts)
        self._rehearsal = party
        self._seen: dict[tuple[object, ...], tuple[list[Request], int, tuple[int, ...]]] = {}

    def secure(self, op: Operator, operands: Sequence[Value]) -> Tensor:
        key = self.signature(op, operands)
        requests = self._rehearsal.requests
        if key in self._seen:
            asked, rounds, shape = self._seen[key]
            requests += asked
            self._rehearsal.rounds += rounds
            return torch.empty(shape, dtype=torch.int64, device="meta")
        before, rounds = len(requests), self._rehearsal.rounds
        found = super().secure(op, operands)
        asked = requests[before:]
        if not any(item.kept for item in asked):
            self._seen[key] = (asked, self._rehearsal.rounds - rounds, tuple(found.shape))
        return found
