"""A traced model evaluated by two parties on one machine: what the sockets counted beside what the
closed forms predict, and what came out beside PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ...errors import VitruviusError
from ...models.graph import Graph, execute_all
from .operators import mpc_traffic, setup_traffic
from .options import MpcOptions
from .parties import ring
from .parties.link import HEADER_BYTES
from .parties.local import run_locally
from .parties.ranges import check_ranges, expected_failures, measured_ranges, shifts
from .parties.roles import PartyResult, Task
from .protocols import load_protocol

__all__ = ["THREAT", "OperatorRun", "RunReport", "prepared_task", "report_run", "run_model"]

FRACTION_BITS = 16

THREAT = (
    "Threat model: semi-honest parties, who follow the protocol and do not work together, and a "
    "dealer that both trust and that works with neither. Connections are neither encrypted nor "
    "authenticated. A local truncation is wrong by 2^(64 - fraction bits) units with a probability "
    "of |product| / 2^64. This is a measuring instrument and a demonstrator, not a product for "
    "secrets."
)


@dataclass(frozen=True)
class OperatorRun:
    """One operator, of one party and image: counted on the socket, and predicted by closed forms.

    offline: bytes that the dealer sent party 0 ahead. wall_s: mean over the images.
    """

    name: str
    kind: str
    rounds: int
    bytes_sent: int
    bytes_received: int
    offline_bytes: int
    predicted_rounds: int
    predicted_sent: int
    predicted_received: int
    predicted_offline: int
    wall_s: float

    @property
    def equal(self) -> bool:
        """Whether all four counts are as predicted."""
        counted = (self.rounds, self.bytes_sent, self.bytes_received, self.offline_bytes)
        return counted == (
            self.predicted_rounds,
            self.predicted_sent,
            self.predicted_received,
            self.predicted_offline,
        )


@dataclass(frozen=True)
class Fit:
    """How a model fits the ring: the operator with the widest product before truncation with its
    bits, and how many truncations of one image are expected to go wrong.
    """

    widest: tuple[str, int]
    expected_failures: float


@dataclass(frozen=True)
class RunReport:
    """A run over some images.

    equal: every operator of every image and both parties is as predicted, and the sockets moved
    nothing else but ``header_bytes`` (16 for each round) and ``beside_bytes`` (greetings). agree:
    images with PyTorch's label (of the traced graph in float); correct: with the true one, if
    known.
    largest_error: of an output against PyTorch's; widest: the operator with the widest product
    before truncation, and its bits of the ring's 64; expected_failures: truncations of one image
    that are expected to go wrong.
    """

    model: str
    options: MpcOptions
    fraction_bits: int
    images: int
    operators: tuple[OperatorRun, ...]
    equal: bool
    rounds: int
    bytes_sent: int
    bytes_received: int
    offline_bytes: int
    setup_rounds: int
    setup_sent: int
    header_bytes: int
    beside_bytes: int
    agree: int
    correct: int | None
    outputs: tuple[tuple[float, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    largest_error: float
    mean_error: float
    largest_output: float
    widest: tuple[str, int]
    expected_failures: float
    shifts: dict[str, int]
    offline_s: float
    online_s: float
    wall_s: float
    seeded: bool

    def record(self) -> dict[str, object]:
        """The report as plain values for JSON."""
        found = asdict(self) | {"options": self.options.model_dump()}
        return found | {"sent_and_received": self.bytes_sent + self.bytes_received}


def prepared_task(
    graph: Graph,
    calibration: Tensor,
    options: MpcOptions,
    runs: int,
    *,
    test_seed: int | None = None,
    timeout_s: float = 30.0,
) -> tuple[Task, Fit]:
    """The task of a run, with public powers of two chosen on ``calibration`` [n, ...]; and how the
    model fits the ring.

    Raises VitruviusError listing every tensor that does not fit the ring.
    """
    fraction_bits = options.fraction_bits or FRACTION_BITS
    ranges = measured_ranges(graph, calibration)
    widest = check_ranges(ranges, graph, options, fraction_bits)
    task = Task(
        options,
        fraction_bits,
        runs,
        shifts=shifts(ranges, graph, options),
        test_seed=test_seed,
        timeout_s=timeout_s,
    )
    failures = expected_failures(ranges, graph, fraction_bits)
    return task, Fit(widest, sum(failures.values()))


def run_model(
    graph: Graph,
    images: Tensor,
    *,
    calibration: Tensor,
    options: MpcOptions | None = None,
    labels: Tensor | None = None,
    test_seed: int | None = None,
    timeout_s: float = 30.0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> RunReport:
    """Runs ``graph`` on ``images`` [n, ...] between two processes on this machine and compares.

    ``calibration`` [n, ...] are images of the model's owner, for `parties.ranges`. ``test_seed``
    makes every share and mask the same each time, and secret to nobody.

    Raises VitruviusError for operators without a protocol, values that do not fit the ring, and a
    party that fails.
    """
    chosen = MpcOptions() if options is None else options
    if len(graph.inputs) != 1:
        raise VitruviusError(
            f"{graph.name} has {len(graph.inputs)} inputs, expected one: the image of party 1"
        )
    mpc_traffic(graph, load_protocol("crypten"), chosen)  # what has no protocol is refused at once
    task, fit = prepared_task(
        graph, calibration, chosen, len(images), test_seed=test_seed, timeout_s=timeout_s
    )
    start = time.perf_counter()
    given = [[image[None]] for image in images]
    results = run_locally(graph, task, given, progress=progress, threads=threads)
    wall_s = time.perf_counter() - start
    return report_run(graph, task, results, images, labels=labels, fit=fit, wall_s=wall_s)


def report_run(
    graph: Graph,
    task: Task,
    results: Sequence[PartyResult],
    images: Tensor,
    *,
    labels: Tensor | None,
    fit: Fit,
    wall_s: float,
) -> RunReport:
    """What a finished run shows, from the results of both parties."""
    first = results[0]
    operators, equal = _operators(graph, task, results)
    setup = setup_traffic(graph, load_protocol("crypten"), task.options)
    payload = sum(op.bytes_sent for run in first.counted for op in run) + first.setup_bytes[0]
    headers = HEADER_BYTES * (
        first.setup_rounds + sum(op.rounds for r in first.counted for op in r)
    )
    equal &= (first.setup_rounds, first.setup_bytes[0]) == (setup.rounds, setup.bytes_sent)
    equal &= first.socket_sent == payload + headers + first.beside_bytes
    equal &= all(
        size == sum(op.offline_bytes for op in run)
        for size, run in zip(first.offline_bytes, first.counted, strict=True)
    )
    same = all(
        torch.equal(a, b)
        for runs in zip(*(result.outputs for result in results), strict=True)
        for a, b in zip(*runs, strict=True)
    )
    if not same:
        raise VitruviusError(f"{graph.name}: the parties opened different outputs")
    found = [ring.decode(run[0], task.fraction_bits).flatten() for run in first.outputs]
    expected = [execute_all(graph, image[None])[0].double().flatten() for image in images]
    errors = torch.stack([(a - b).abs() for a, b in zip(found, expected, strict=True)])
    answers = [int(values.argmax()) for values in found]
    return RunReport(
        model=graph.name,
        options=task.options,
        fraction_bits=task.fraction_bits,
        images=len(images),
        operators=operators,
        equal=equal,
        rounds=sum(op.rounds for op in operators),
        bytes_sent=sum(op.bytes_sent for op in operators),
        bytes_received=sum(op.bytes_received for op in operators),
        offline_bytes=sum(op.offline_bytes for op in operators),
        setup_rounds=first.setup_rounds,
        setup_sent=first.setup_bytes[0],
        header_bytes=headers,
        beside_bytes=first.beside_bytes,
        agree=sum(a == int(b.argmax()) for a, b in zip(answers, expected, strict=True)),
        correct=None
        if labels is None
        else sum(a == int(b) for a, b in zip(answers, labels, strict=True)),
        outputs=tuple(tuple(values.tolist()) for values in found),
        expected=tuple(tuple(values.tolist()) for values in expected),
        largest_error=float(errors.max()),
        mean_error=float(errors.mean()),
        largest_output=max(float(values.abs().max()) for values in expected),
        widest=fit.widest,
        expected_failures=fit.expected_failures,
        shifts=dict(task.shifts),
        offline_s=sum(first.offline_s) / len(images),
        online_s=sum(first.online_s) / len(images),
        wall_s=wall_s,
        seeded=task.test_seed is not None,
    )


def _operators(
    graph: Graph, task: Task, results: Sequence[PartyResult]
) -> tuple[tuple[OperatorRun, ...], bool]:
    """Every operator as party 0 counted it for the first image, and whether every image and both
    parties agree with the prediction.
    """
    predicted = mpc_traffic(graph, load_protocol("crypten"), task.options)
    rows, equal = [], True
    for place, op in enumerate(results[0].counted[0]):
        online, offline = predicted[op.name].online, predicted[op.name].offline
        counted = [run[place] for result in results for run in result.counted]
        walls = [run[place].wall_s for run in results[0].counted]
        row = OperatorRun(
            op.name,
            op.kind,
            op.rounds,
            op.bytes_sent,
            op.bytes_received,
            op.offline_bytes,
            online.rounds,
            online.bytes_sent,
            online.bytes_received,
            offline.bytes_received,
            sum(walls) / len(walls),
        )
        seen = {
            (item.name, item.rounds, item.bytes_sent, item.bytes_received, item.offline_bytes)
            for item in counted
        }
        equal &= row.equal and len(seen) == 1
        rows.append(row)
    return tuple(rows), equal
