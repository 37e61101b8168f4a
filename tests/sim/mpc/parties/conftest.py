"""Runs a function of shared values as two parties in two threads, with a dealer beside them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from torch import Tensor

from vitruvius.sim.mpc.parties import ring
from vitruvius.sim.mpc.parties.correlated import Masks, correction
from vitruvius.sim.mpc.parties.link import HEADER_BYTES, Link
from vitruvius.sim.mpc.parties.party import Party, Rehearsal
from vitruvius.sim.mpc.parties.stream import RandomStream, fresh_seed

FRACTION = 16


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
