"""A run on one machine: two parties and a dealer, processes of their own, over TCP on loopback."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import numpy as np
import torch
from torch import Tensor

from ....errors import VitruviusError
from ....models.graph import Graph, Operator
from .link import accept, listen, reach
from .roles import NAMES, PartyResult, Task, run_dealer, run_party, without_values

__all__ = ["run_locally"]

_LOOPBACK = "127.0.0.1"
_GRACE_S = 5.0
_DEALER = 2

Packed = np.ndarray | tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class _Parcel:
    """A graph on its way to another process: arrays where there are values, else shapes."""

    name: str
    operators: list[Operator]
    tensors: dict[str, Packed]


@dataclass(frozen=True)
class _Said:
    """What a process tells the one that started it: progress, its result, or why it ended."""

    run: int = 0
    result: PartyResult | None = None
    outputs: list[list[np.ndarray]] | None = None
    reason: str = ""


def run_locally(
    graph: Graph,
    task: Task,
    images: Sequence[Sequence[Tensor]],
    *,
    progress: Callable[[int], None] | None = None,
    threads: int = 1,
) -> tuple[PartyResult, PartyResult]:
    """The results of party 0 and party 1 on ``images``, by input for each run.

    Party 1 gets the graph without what was trained. All three processes end with this call.

    Raises VitruviusError with the reason of the process that failed first.
    """
    servers = [listen((_LOOPBACK, 0)) for _ in range(2)]
    addresses = [server.getsockname()[:2] for server in servers]
    arrays = [[tensor.numpy() for tensor in image] for image in images]
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for role, known in ((0, graph), (1, without_values(graph)), (_DEALER, None)):
            mine, theirs = context.Pipe()
            server = servers[0] if role == _DEALER else servers[1] if role == 0 else None
            process = context.Process(
                target=_play,
                name=NAMES[role],
                args=(
                    role,
                    None if known is None else _packed(known),
                    task,
                    arrays if role == 1 else None,
                    server,
                    addresses,
                    theirs,
                    threads,
                ),
                daemon=True,
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(mine)
        for server in servers:
            server.close()
        return _collected(processes, pipes, progress)
    finally:
        for server in servers:
            server.close()
        for process in processes:
            process.terminate()
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()


def _collected(
    processes: Sequence[SpawnProcess],
    pipes: Sequence[Connection],
    progress: Callable[[int], None] | None,
) -> tuple[PartyResult, PartyResult]:
    """Listens to all processes until each is done or has failed."""
    open_pipes = dict(enumerate(pipes))
    results: dict[int, PartyResult] = {}
    reasons: dict[int, str] = {}
    deadline: float | None = None
    while open_pipes:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(open_pipes.values()), left)
        if not ready:
            break
        for role in [role for role, pipe in open_pipes.items() if pipe in ready]:
            try:
                said: _Said = open_pipes[role].recv()
            except EOFError:
                del open_pipes[role]
                processes[role].join(_GRACE_S)
                if code := processes[role].exitcode:
                    reasons.setdefault(role, _died(role, code))
                continue
            if said.reason:
                reasons[role] = said.reason
            elif said.result is not None and said.outputs is not None:
                words = [[torch.from_numpy(word) for word in run] for run in said.outputs]
                results[role] = replace(said.result, outputs=words)
            elif role == 0 and said.run and progress is not None:
                progress(said.run)
        if reasons and deadline is None:
            deadline = time.monotonic() + _GRACE_S
    if reasons:
        raise VitruviusError(_first_cause(reasons))
    return results[0], results[1]


def _first_cause(reasons: dict[int, str]) -> str:
    """The reason that explains the others: a process that died, or one that did not only notice
    that another was gone.
    """
    died = [
        text for role, text in sorted(reasons.items()) if text.startswith(f"{NAMES[role]} died")
    ]
    own = [text for text in reasons.values() if not any(word in text for word in _EFFECTS)]
    return (died or own or list(reasons.values()))[0]


_EFFECTS = (" closed the connection", " stopped: ", " broke")


def _died(role: int, code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"{NAMES[role]} died of {signal.Signals(-code).name}"
    return f"{NAMES[role]} died with exit code {code}"


def _play(
    role: int,
    parcel: _Parcel | None,
    task: Task,
    images: list[list[np.ndarray]] | None,
    server: socket.socket | None,
    addresses: list[tuple[str, int]],
    pipe: Connection,
    threads: int,
) -> None:
    """The main function of one process."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    try:
        if role == _DEALER:
            assert server is not None
            run_dealer(server, task)
            return
        assert parcel is not None
        dealer = reach(addresses[0], NAMES[_DEALER], timeout_s=task.start_s)
        if role == 0:
            assert server is not None
            peer = accept(server, NAMES[1], timeout_s=task.start_s)
        else:
            peer = reach(addresses[1], NAMES[0], timeout_s=task.start_s)
        given = None
        if images is not None:
            given = [[torch.from_numpy(array) for array in image] for image in images]
        result = run_party(
            role,
            _unpacked(parcel),
            task,
            peer,
            dealer,
            images=given,
            progress=lambda run: pipe.send(_Said(run=run)),
        )
        words = [[word.numpy() for word in run] for run in result.outputs]
        pipe.send(_Said(result=replace(result, outputs=[]), outputs=words))
    except VitruviusError as error:
        pipe.send(_Said(reason=str(error)))
    finally:
        pipe.close()


def _packed(graph: Graph) -> _Parcel:
    return _Parcel(
        graph.name,
        graph.operators(),
        {
            key: (tuple(tensor.shape), str(tensor.dtype)) if tensor.is_meta else tensor.numpy()
            for key, tensor in graph.tensors.items()
        },
    )


def _unpacked(parcel: _Parcel) -> Graph:
    tensors: dict[str, Tensor] = {}
    for key, held in parcel.tensors.items():
        if isinstance(held, tuple):
            dtype = getattr(torch, held[1].removeprefix("torch."))
            tensors[key] = torch.empty(held[0], dtype=dtype, device="meta")
        else:
            tensors[key] = torch.from_numpy(held)
    return Graph(parcel.name, parcel.operators, tensors)
