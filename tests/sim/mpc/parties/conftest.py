"""Functions of shared values, and whole graphs, as two parties in two threads with a dealer beside
them.
"""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from torch import Tensor

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.parties import ring, roles
from vitruvius.sim.mpc.parties.correlated import Masks, correction
from vitruvius.sim.mpc.parties.link import HEADER_BYTES, Link, accept, listen, reach
from vitruvius.sim.mpc.parties.party import Party
from vitruvius.sim.mpc.parties.ranges import measured_ranges, shifts
from vitruvius.sim.mpc.parties.rehearsal import Rehearsal
from vitruvius.sim.mpc.parties.roles import NAMES, PartyResult, Task, run_dealer, run_party
from vitruvius.sim.mpc.parties.stream import RandomStream, fresh_seed

FRACTION = 16
SECONDS = 30
START = 20.0


@dataclass(frozen=True)
class Duet:
    """What came out: the shares' sum, rounds, payload bytes sent and received by party 0, and words
    that the dealer sent it.
    """

    words: Tensor
    rounds: int
    sent: int
    received: int
    offline: int

    @property
    def values(self) -> Tensor:
        return ring.decode(self.words, FRACTION)


def duet(
    function: Callable[..., Tensor], *values: Tensor, seed: int = 0, encoded: bool = True
) -> Duet:
    """``function(party, *shares)`` on shares of ``values`` (floats, or words where not
    ``encoded``).
    """
    words = [ring.encode(v, FRACTION) if encoded else v for v in values]
    rehearsal = Rehearsal(FRACTION)
    function(rehearsal, *(word.to("meta") for word in words))
    seeds = [fresh_seed(seed, f"masks {rank}") for rank in (0, 1)]
    dealing = [Masks(RandomStream(s), rank) for rank, s in enumerate(seeds)]
    for name, shape in rehearsal.kept:
        for masks in dealing:
            masks.keep(name, shape)
    corrections = [correction(request, *dealing) for request in rehearsal.requests]
    blinds = [
        RandomStream(fresh_seed(seed, f"blind {n}")).words(w.shape) for n, w in enumerate(words)
    ]
    ends = socket.socketpair()
    links = [Link(end, f"party {1 - rank}", timeout_s=20) for rank, end in enumerate(ends)]

    def play(rank: int) -> tuple[Tensor, int]:
        party = Party(
            rank,
            links[rank],
            common=RandomStream(fresh_seed(seed, "common")),
            own=RandomStream(fresh_seed(seed, f"own {rank}")),
            masks=Masks(RandomStream(seeds[rank]), rank),
            fraction_bits=FRACTION,
        )
        party.corrections = iter(corrections) if rank == 0 else None
        shares = [
            word - blind if rank == 0 else blind for word, blind in zip(words, blinds, strict=True)
        ]
        return function(party, *shares), party.rounds

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(play, rank) for rank in (0, 1)]
        (first, rounds), (second, others) = (future.result() for future in futures)
    assert rounds == others == rehearsal.rounds
    headers = HEADER_BYTES * rounds
    assert links[0].sent == links[1].received and links[0].received == links[1].sent
    return Duet(
        first + second,
        rounds,
        links[0].sent - headers,
        links[0].received - headers,
        sum(request.elements for request in rehearsal.requests),
    )


@pytest.fixture
def together() -> Callable[..., Duet]:
    """Runs a function of shared values as two parties."""
    return duet


def task(graph: Graph, images: Tensor, **changes: object) -> Task:
    options = changes.pop("options", MpcOptions())
    assert isinstance(options, MpcOptions)
    found = shifts(measured_ranges(graph, images), graph, options)
    plain = Task(options, 16, len(images), shifts=found, test_seed=5, timeout_s=START)
    return dataclasses.replace(plain, **changes)


Outcome = PartyResult | str | None


def play(
    tasks: tuple[Task, Task],
    graphs: tuple[Graph, Graph],
    images: Tensor,
    *,
    between: Callable[[tuple[str, int]], tuple[str, int]] = lambda address: address,
) -> list[Outcome]:
    """Party 0, party 1 and the dealer; errors as their texts. ``between`` puts something into the
    line between the parties.
    """
    servers = [listen(("127.0.0.1", 0)) for _ in range(2)]
    dealer_at, party_at = (server.getsockname() for server in servers)

    def party(rank: int) -> Outcome:
        try:
            dealer = reach(dealer_at, NAMES[2], timeout_s=START)
            if rank == 0:
                peer = accept(servers[1], NAMES[1], timeout_s=START)
            else:
                peer = reach(between(party_at), NAMES[0], timeout_s=START)
            given = [[image[None]] for image in images] if rank else None
            known = roles.without_values(graphs[1]) if rank else graphs[0]
            return run_party(rank, known, tasks[rank], peer, dealer, images=given)
        except VitruviusError as error:
            return str(error)

    def dealing() -> Outcome:
        try:
            run_dealer(servers[0], tasks[0])
        except VitruviusError as error:
            return str(error)
        return None

    start = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(party, 0), pool.submit(party, 1), pool.submit(dealing)]
        outcomes = [future.result(timeout=60) for future in futures]
    for server in servers:
        server.close()
    if any(isinstance(outcome, str) for outcome in outcomes):
        assert time.monotonic() - start < SECONDS, "a failure must end all sides soon"
    return outcomes


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Parties in threads hand over more often than Python's 5 ms: they wait for each other."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(name="task")
def task_fixture() -> Callable[..., Task]:
    """Makes the task of a run."""
    return task


@pytest.fixture(name="play")
def play_fixture() -> Callable[..., list[Outcome]]:
    """Plays all roles of a run."""
    return play
