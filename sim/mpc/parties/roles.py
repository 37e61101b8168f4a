"""The three roles of a run, each a function from its connections to its result."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from .... import __version__
from ....errors import VitruviusError
from ....models.graph import Graph
from ..options import MpcOptions
from ..secrecy import Knowledge, knowledge
from .correlated import Masks, Order
from .dealer import ask, corrections, deal
from .evaluation import Counted, Evaluation
from .link import HEADER_BYTES, Kind, Link, LinkError, accept
from .party import Party
from .rehearsal import rehearsed
from .stream import SEED_BYTES, RandomStream, fresh_seed

__all__ = ["NAMES", "PartyResult", "Task", "run_dealer", "run_party", "structure", "without_values"]

NAMES = ("party 0 (model)", "party 1 (image)", "the dealer")
_WIRE = 1
_READY = b"ready"
_PRINTABLE = r"^[ -~]*$"
_MOST_HELLO = 1 << 20


@dataclass(frozen=True)
class Task:
    """What all roles agree on before anything secret moves.

    runs: images, one after another. shifts: of `ranges.shifts`; party 0's are used. test_seed makes
    all random words the same every time, for tests only. start_s: how long the others may take to
    be started; timeout_s: how long one that runs may be silent.
    """

    options: MpcOptions
    fraction_bits: int
    runs: int
    shifts: Mapping[str, int] = field(default_factory=dict)
    test_seed: int | None = None
    timeout_s: float = 30.0
    start_s: float = 60.0


@dataclass(frozen=True)
class PartyResult:
    """What a party has after a run: for each image the words of every output, and the traffic of
    every operator.

    setup_bytes: payload to and from the peer before the first image, headers and greetings apart.
    offline_bytes: corrections for one image; offline_s, online_s: seconds for each image.
    socket_sent, socket_received: all bytes of the connection to the peer; beside_bytes: sent
    outside of rounds, to greet and to say that an image can begin.
    """

    outputs: list[list[Tensor]]
    counted: list[list[Counted]]
    setup_rounds: int
    setup_bytes: tuple[int, int]
    offline_bytes: list[int]
    offline_s: list[float]
    online_s: list[float]
    socket_sent: int
    socket_received: int
    beside_bytes: int


class _Hello(BaseModel):
    """The first message of each role."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(max_length=100, pattern=_PRINTABLE)
    wire: int
    role: int = Field(ge=0, le=2)
    model: str = Field(default="", max_length=1000, pattern=_PRINTABLE)
    structure: str = Field(default="", max_length=100, pattern=_PRINTABLE)
    runs: int = 0
    shifts: dict[str, Annotated[int, Field(ge=-30, le=30)]] = Field(default_factory=dict)


def structure(graph: Graph, options: MpcOptions, fraction_bits: int) -> str:
    """A digest of everything public: operators, shapes, attributes, numbers in the model's code,
    options.
    """
    who = knowledge(graph)
    public = {
        op.name: graph.tensors[op.tensors["value"]].tolist()
        for op in graph.operators()
        if op.kind == "Constant" and who[op.name] is Knowledge.PUBLIC
    }
    operators = [
        (op.name, op.kind, op.inputs, op.output.shape, sorted(op.attributes.items()))
        for op in graph.operators()
    ]
    shapes = {key: tuple(tensor.shape) for key, tensor in sorted(graph.tensors.items())}
    text = json.dumps([operators, public, shapes, options.model_dump(), fraction_bits])
    return hashlib.sha256(text.encode()).hexdigest()


def without_values(graph: Graph) -> Graph:
    """The graph with only shapes of what its owner trained: what party 1 has of it."""
    who = knowledge(graph)
    public = {
        key
        for op in graph.operators()
        for key in op.tensors.values()
        if op.kind == "Constant" and who[op.name] is Knowledge.PUBLIC
    }
    public |= {key for key, tensor in graph.tensors.items() if not tensor.is_floating_point()}
    tensors = {
        key: tensor if key in public else tensor.to("meta") for key, tensor in graph.tensors.items()
    }
    return Graph(graph.name, graph.operators(), tensors, batched=graph.batched)


def run_party(
    rank: int,
    graph: Graph,
    task: Task,
    peer: Link,
    dealer: Link,
    *,
    images: Sequence[Sequence[Tensor]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> PartyResult:
    """Party 0 with the values of ``graph``, or party 1 with ``images``, by input for each run.

    Raises LinkError when a peer dies, stalls, or runs something else; the peers are told.
    """
    try:
        return _party(rank, graph, task, peer, dealer, images, progress)
    except VitruviusError as error:
        for link in (peer, dealer):
            link.stop(str(error))
        raise
    finally:
        peer.close()
        dealer.close()


def _party(
    rank: int,
    graph: Graph,
    task: Task,
    peer: Link,
    dealer: Link,
    images: Sequence[Sequence[Tensor]] | None,
    progress: Callable[[int], None] | None,
) -> PartyResult:
    shifts = _greet(rank, graph, task, peer, dealer)
    common = RandomStream(_common_seed(rank, task, peer))
    masks = Masks(RandomStream(_seed(dealer)), rank)
    for link in (peer, dealer):
        link.patience(task.timeout_s)
    own = RandomStream(fresh_seed(task.test_seed, f"own of party {rank}"))
    order = Order(requests=())
    if rank == 0:  # the other party draws its masks from the seed as it comes to them
        order = rehearsed(graph, task.options, task.fraction_bits, shifts, task.runs)
        ask(dealer, order)
        peer.send(Kind.NEXT, _READY)
    else:
        _until_ready(peer)
    for link in (peer, dealer):
        link.patience(task.timeout_s)
    party = Party(rank, peer, common=common, own=own, masks=masks, fraction_bits=task.fraction_bits)
    evaluation = Evaluation(graph, party, task.options, shifts=shifts, link=peer)
    before = peer.sent, peer.received
    evaluation.prepare()
    setup = party.rounds
    setup_bytes = (
        peer.sent - before[0] - HEADER_BYTES * setup,
        peer.received - before[1] - HEADER_BYTES * setup,
    )
    beside = before[0]
    outputs, counted = [], []
    offline_bytes, offline_s, online_s = [], [], []
    for run in range(task.runs):
        start = time.perf_counter()
        so_far, greeted = (dealer.received, dealer.messages_received), peer.sent
        if rank == 0:
            dealer.where = f"masks of image {run + 1}"
            party.corrections = corrections(dealer, order, lambda: peer.send(Kind.NEXT, b""))
            peer.send(Kind.NEXT, _READY)
        else:
            _until_ready(peer)
        beside += peer.sent - greeted
        headers = HEADER_BYTES * (dealer.messages_received - so_far[1])
        offline_bytes.append(dealer.received - so_far[0] - headers)
        prepared = time.perf_counter()
        given = [None] * len(graph.inputs) if images is None else images[run]
        found, traffic = evaluation.run(given)
        online_s.append(time.perf_counter() - prepared)
        offline_s.append(prepared - start)
        outputs.append(found)
        counted.append(traffic)
        if progress is not None:
            progress(run + 1)
    return PartyResult(
        outputs,
        counted,
        setup,
        setup_bytes,
        offline_bytes,
        offline_s,
        online_s,
        peer.sent,
        peer.received,
        beside,
    )


def run_dealer(
    server: socket.socket, task: Task, *, progress: Callable[[int], None] | None = None
) -> None:
    """The dealer: waits for both parties, in any order, and serves one computation."""
    links: dict[int, Link] = {}
    try:
        for _ in range(2):
            link = accept(server, "a party", timeout_s=task.start_s)
            try:
                hello = _read_hello(link)
                if hello.role in links or hello.role > 1:
                    raise LinkError(f"expected party {1 - hello.role}, got another {hello.role}")
                _same(hello, "version", __version__, hello.version)
                _same(hello, "wire format", _WIRE, hello.wire)
            except VitruviusError as error:
                link.stop(str(error))
                raise
            link.peer = NAMES[hello.role]
            link.patience(None)
            links[hello.role] = link
        deal(links[0], links[1], test_seed=task.test_seed, done=progress)
    except VitruviusError as error:
        for link in links.values():
            link.stop(str(error))
        raise
    finally:
        server.close()
        for link in links.values():
            link.close()


def _greet(rank: int, graph: Graph, task: Task, peer: Link, dealer: Link) -> dict[str, int]:
    """Both sides say what they run; the shifts of party 0 are returned."""
    mine = _Hello(
        version=__version__,
        wire=_WIRE,
        role=rank,
        model=graph.name,
        structure=structure(graph, task.options, task.fraction_bits),
        runs=task.runs,
        shifts=dict(task.shifts) if rank == 0 else {},
    )
    dealer.send(
        Kind.HELLO, _Hello(version=__version__, wire=_WIRE, role=rank).model_dump_json().encode()
    )
    peer.send(Kind.HELLO, mine.model_dump_json().encode())
    theirs = _read_hello(peer)
    peer.peer = NAMES[1 - rank]
    _same(theirs, "role", 1 - rank, theirs.role)
    _same(theirs, "version", mine.version, theirs.version)
    _same(theirs, "wire format", mine.wire, theirs.wire)
    _same(theirs, "model", mine.model, theirs.model)
    if mine.structure != theirs.structure:
        raise LinkError(
            f"{NAMES[theirs.role]} runs another graph of {mine.model}, other options or other "
            "fraction bits"
        )
    _same(theirs, "number of images", mine.runs, theirs.runs)
    return mine.shifts if rank == 0 else theirs.shifts


def _read_hello(link: Link) -> _Hello:
    text = link.receive(Kind.HELLO, _MOST_HELLO)
    try:
        return _Hello.model_validate_json(text)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"]) or "text"
        raise LinkError(f"{link.peer} greeted with a malformed {field}") from None


def _same(theirs: _Hello, what: str, mine: object, other: object) -> None:
    if mine != other:
        raise LinkError(f"{NAMES[theirs.role]} has {what} {other}, expected {mine}")


def _until_ready(peer: Link) -> None:
    """Waits while party 0 says that it is still preparing."""
    while peer.receive(Kind.NEXT, len(_READY)) != _READY:
        pass


def _common_seed(rank: int, task: Task, peer: Link) -> bytes:
    """A seed that both parties have and neither chose alone."""
    mine = fresh_seed(task.test_seed, f"common of party {rank}")
    peer.send(Kind.SEED, mine)
    return bytes(a ^ b for a, b in zip(mine, _seed(peer), strict=True))


def _seed(link: Link) -> bytes:
    seed = link.receive(Kind.SEED, SEED_BYTES)
    if len(seed) != SEED_BYTES:
        raise LinkError(f"{link.peer} sent a seed of {len(seed)} bytes, expected {SEED_BYTES}")
    return seed
