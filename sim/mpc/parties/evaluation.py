"""A traced graph evaluated by one party on shares, and the traffic of every operator as the sockets
counted it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import VitruviusError
from ....models.graph import Graph, Operator, evaluate
from ..options import MpcOptions
from ..secrecy import Knowledge, heads_apart, knowledge, non_negative
from .link import HEADER_BYTES, Link
from .operators import SECURE, Scene, Value
from .party import Party

__all__ = ["Counted", "Evaluation", "refusals"]

_WORD = 8
_INPUT_OWNER = 1
_MODEL_OWNER = 0


@dataclass(frozen=True)
class Counted:
    """What one operator exchanged: rounds, payload bytes counted on the socket, bytes that the
    dealer sent ahead for it, and seconds.
    """

    name: str
    kind: str
    rounds: int
    bytes_sent: int
    bytes_received: int
    offline_bytes: int
    wall_s: float


class Evaluation:
    """One party's evaluation of ``graph``, of which party 0 has the values and party 1 the image.

    ``shifts``: by operator, half the binary exponent that its variance or divisor is divided by.
    ``link`` is where traffic is counted; None rehearses without.

    Raises VitruviusError listing every operator that has no secure evaluation.
    """

    def __init__(
        self,
        graph: Graph,
        party: Party,
        options: MpcOptions,
        *,
        shifts: Mapping[str, int],
        link: Link | None = None,
    ) -> None:
        refuse(graph)
        self._graph = graph
        self._party = party
        self._options = options
        self._shifts = shifts
        self._link = link
        self._who = knowledge(graph)
        self._sure = non_negative(graph)
        self._weights: dict[str, Tensor] = {}
        self._kept: set[str] = set()

    def prepare(self) -> None:
        """Shares what the model's owner knows; with ``weights="once"`` also opens every weight
        under its mask, in one round.
        """
        kept = []
        for op in self._graph.operators():
            if self._who[op.name] is not Knowledge.SECRET:
                continue
            for role, key in sorted(op.tensors.items()):
                if key not in self._weights:
                    self._weights[key] = self._shared(key)
                once = self._options.weights == "once" and role == "weight"
                if once and op.kind in ("Linear", "Conv2d"):
                    share = self._weights[key]
                    turned = share.transpose(0, 1) if op.kind == "Linear" else share
                    kept.append((op.name, turned))
                    self._kept.add(op.name)
        self._party.keep_weights(kept)

    def run(self, images: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Counted]]:
        """The words of every output for one image (``images`` are floats by input at party 1, None
        at party 0), and the traffic of every operator.
        """
        held: dict[str, Value] = {}
        counted: list[Counted] = []
        outputs: list[Tensor] = []
        given = dict(zip(self._graph.inputs, images, strict=True))
        operators = self._graph.operators()
        last = {source: op.name for op in operators for source in op.inputs}
        for op in operators:
            if self._link is not None:
                self._link.where = f"operator {op.name}"
            before, dealt = self._so_far(), self._party.dealt
            start = time.perf_counter()
            if op.kind == "Input":
                share = self._party.shared(given[op.name], _INPUT_OWNER, op.output.shape)
                held[op.name] = Value(Knowledge.SECRET, share)
            elif self._who[op.name] is not Knowledge.SECRET:
                held[op.name] = Value(self._who[op.name], self._known(op, held))
            else:
                operands = [held[name] for name in op.inputs]
                held[op.name] = Value(Knowledge.SECRET, self.secure(op, operands))
            if op.kind == "Output":
                outputs += self._party.open(held[op.name].tensor)
            spent = time.perf_counter() - start
            after = self._so_far()
            rounds = after[0] - before[0]
            headers = HEADER_BYTES * rounds
            sent, received = after[1] - before[1] - headers, after[2] - before[2] - headers
            if self._link is None:
                sent = received = 0
            ahead = _WORD * (self._party.dealt - dealt)
            counted.append(Counted(op.name, op.kind, rounds, sent, received, ahead, spent))
            for source in set(op.inputs):
                if last[source] == op.name:
                    del held[source]
        return outputs, counted

    def signature(self, op: Operator, operands: Sequence[Value]) -> tuple[object, ...]:
        """What the masks of an operator depend on."""
        same = len(op.inputs) > 1 and len(set(op.inputs)) == 1
        heads = heads_apart(op, self._graph) if self._options.heads == "apart" else 1
        return (
            op.kind,
            tuple(sorted(op.attributes.items())),
            tuple((value.who, tuple(value.tensor.shape)) for value in operands),
            tuple(sorted((r, tuple(self._weights[key].shape)) for r, key in op.tensors.items())),
            self._scene(op).divisor_positive,
            op.name in self._kept,
            same,
            heads,
        )

    def _so_far(self) -> tuple[int, int, int]:
        link = self._link
        sent, received = (link.sent, link.received) if link is not None else (0, 0)
        return self._party.rounds, sent, received

    def secure(self, op: Operator, operands: Sequence[Value]) -> Tensor:
        """The share of one operator's output, from operands of which one at least is secret."""
        heads = heads_apart(op, self._graph) if self._options.heads == "apart" else 1
        if heads == 1:
            return SECURE[op.kind](self._scene(op), operands)
        found = [
            SECURE[op.kind](self._scene(op), [_head(value, head, heads) for value in operands])
            for head in range(heads)
        ]
        return torch.cat(found, 1)

    def _scene(self, op: Operator) -> Scene:
        divisor = op.inputs[-1] if op.inputs else ""

        def weight(role: str) -> tuple[Tensor, str]:
            kept = op.name if role == "weight" and op.name in self._kept else ""
            return self._weights[op.tensors[role]], kept

        return Scene(
            self._party,
            op,
            self._options,
            weight,
            divisor in self._sure,
            self._shifts.get(op.name, 0),
        )

    def _known(self, op: Operator, held: Mapping[str, Value]) -> Tensor:
        """What the model's owner computes alone; at the other party its shape."""
        operands = [held[name].tensor for name in op.inputs]
        tensors = [self._graph.tensors[key] for key in op.tensors.values()]
        if any(tensor.is_meta for tensor in [*operands, *tensors]):
            return op.output.meta()
        return evaluate(op, operands, self._graph)

    def _shared(self, key: str) -> Tensor:
        tensor = self._graph.tensors[key]
        values = None if tensor.is_meta else tensor
        return self._party.shared(values, _MODEL_OWNER, tuple(tensor.shape))


def _head(value: Value, head: int, heads: int) -> Value:
    if value.tensor.dim() == 4 and value.tensor.shape[1] == heads:
        return Value(value.who, value.tensor[:, head : head + 1])
    return value


def refusals(graph: Graph) -> list[tuple[str, str]]:
    """(operator, reason) of everything that the parties cannot evaluate."""
    who = knowledge(graph)
    found = []
    for op in graph.operators():
        if who[op.name] is not Knowledge.SECRET or op.kind == "Input":
            continue
        if op.kind not in SECURE:
            found.append((op.name, f"{op.kind} has no evaluation on shares"))
        elif op.kind == "Pow" and not _power_known(op):
            found.append((op.name, f"no power {op.attributes['exponent']} on shares"))
        elif op.kind == "Compare" and op.attributes["op"] in ("and", "or", "xor"):
            found.append((op.name, f"no '{op.attributes['op']}' of secret truths on shares"))
        elif op.kind == "VectorNorm" and op.attributes["order"] != 2:
            found.append((op.name, "only the Euclidean norm on shares"))
        elif op.kind == "Pad" and op.attributes["mode"] != "constant":
            found.append((op.name, f"no padding of mode {op.attributes['mode']} on shares"))
    return found


def refuse(graph: Graph) -> None:
    """Raises VitruviusError listing all ``refusals``."""
    if found := refusals(graph):
        listing = "; ".join(f"{name}: {reason}" for name, reason in found)
        raise VitruviusError(f"{graph.name} cannot be evaluated on shares: {listing}")


def _power_known(op: Operator) -> bool:
    exponent = op.attributes["exponent"]
    assert isinstance(exponent, (int, float))
    return exponent in (0.5, -0.5, -1) or (float(exponent).is_integer() and exponent >= 2)
