"""Whole graphs between two parties and a dealer in threads, and all that can go wrong between them:
both sides end within seconds, with one sentence each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, execute
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.operators import mpc_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.parties import ring, roles
from vitruvius.sim.mpc.parties.link import Kind, Link, LinkError, accept, listen
from vitruvius.sim.mpc.parties.roles import NAMES, PartyResult, Task, run_party
from vitruvius.sim.mpc.protocols import load_protocol

SECONDS = 30
Play = Callable[..., list[Any]]
Asking = Callable[..., Task]


class Small(nn.Module):
    """One of everything that the zoo's transformers do, and a convolution in front."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 8, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.wide = nn.Linear(8, 16)
        self.narrow = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(-1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 5, 8)
        x = x + self.narrow(functional.gelu(self.wide(x)))
        return self.head(x.mean(1))


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(3)
    return trace(Small(), (torch.rand(1, 1, 4, 4),), name="small")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(4))


WAYS = {
    "as published": MpcOptions(),
    "lean": MpcOptions(maximum="tree", weights="once", gelu="pieces"),
    "other": MpcOptions(
        maximum="pairs", gelu="sigmoid", rsqrt="goldschmidt", division="element", heads="apart"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_operator_exchanges_what_the_closed_forms_say(
    way: str, graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    """Counted on the sockets by code that does not know the closed forms, online and offline."""
    asked = task(graph, images, options=WAYS[way])
    first, second, dealer = play((asked, asked), (graph, graph), images)
    assert dealer is None
    assert isinstance(first, PartyResult)
    assert isinstance(second, PartyResult)
    predicted = mpc_traffic(graph, load_protocol("crypten"), asked.options)
    for result in (first, second):
        for run in result.counted:
            for item in run:
                online, offline = predicted[item.name].online, predicted[item.name].offline
                counted = (item.rounds, item.bytes_sent, item.bytes_received, item.offline_bytes)
                assert counted == (
                    online.rounds,
                    online.bytes_sent,
                    online.bytes_received,
                    offline.bytes_received,
                ), item.name
    offline_bytes = sum(item.offline.bytes_received for item in predicted.values())
    assert first.offline_bytes == [offline_bytes] * 2
    assert second.offline_bytes == [0, 0]
    expected = execute(graph, images)
    for place, (mine, theirs) in enumerate(zip(first.outputs, second.outputs, strict=True)):
        assert torch.equal(mine[0], theirs[0])
        error = (ring.decode(mine[0], 16) - expected[place]).abs().max()
        assert float(error) < 0.03


def test_the_same_seed_gives_the_same_words_and_another_others(
    graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    asked = task(graph, images)
    words = []
    for seed in (5, 5, 6):
        seeded = dataclasses.replace(asked, test_seed=seed)
        outcome = play((seeded, seeded), (graph, graph), images)[0]
        assert isinstance(outcome, PartyResult)
        words.append(outcome.outputs[0][0])
    assert torch.equal(words[0], words[1])
    assert not torch.equal(words[0], words[2])
    assert float((ring.decode(words[0] - words[2], 16)).abs().max()) < 0.02


def test_party_1_has_no_trained_values(graph: Graph) -> None:
    known = roles.without_values(graph)
    trained = [key for key in graph.tensors if not key.startswith("scalar.")]
    assert trained
    assert all(known.tensors[key].is_meta for key in trained)


def test_a_peer_with_another_model_ends_both(
    graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    torch.manual_seed(3)
    wider = Small()
    wider.wide, wider.narrow = nn.Linear(8, 18), nn.Linear(18, 8)
    other = trace(wider, (torch.rand(1, 1, 4, 4),), name="small")
    asked = task(graph, images)
    first, second, _ = play((asked, asked), (graph, other), images)
    assert first == "party 1 (image) runs another graph of small, other options or other " + (
        "fraction bits"
    )
    assert second == "party 0 (model) runs another graph of small, other options or other " + (
        "fraction bits"
    )


def test_a_peer_with_other_options_ends_both(
    graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    asked, other = task(graph, images), task(graph, images, options=WAYS["lean"])
    first, second, _ = play((asked, other), (graph, graph), images)
    assert "other options" in str(first)
    assert "other options" in str(second)


def test_a_peer_with_another_number_of_images_ends_both(
    graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    asked = task(graph, images)
    first, second, _ = play((asked, dataclasses.replace(asked, runs=1)), (graph, graph), images)
    assert first == "party 1 (image) has number of images 1, expected 2"
    assert second == "party 0 (model) has number of images 2, expected 1"


def test_a_peer_of_another_version_ends_both(
    graph: Graph, images: Tensor, monkeypatch: pytest.MonkeyPatch, play: Play, task: Asking
) -> None:
    asked, greet = task(graph, images), roles._Hello

    def hello(**fields: object) -> object:
        old = fields["role"] == 1 and fields.get("model")
        return greet(**(fields | ({"version": "0.0.9"} if old else {})))

    monkeypatch.setattr(roles, "_Hello", hello)
    monkeypatch.setattr(hello, "model_validate_json", greet.model_validate_json, raising=False)
    first, second, _ = play((asked, asked), (graph, graph), images)
    assert str(first).startswith("party 1 (image) has version 0.0.9, expected ")
    assert str(second).startswith("party 0 (model) has version ")


def cut_after(size: int) -> Callable[[tuple[str, int]], tuple[str, int]]:
    """A line that is cut when so many bytes have passed."""

    def between(address: tuple[str, int]) -> tuple[str, int]:
        server = listen(("127.0.0.1", 0))

        def forward() -> None:
            inner, _ = server.accept()
            outer = socket.create_connection(address)
            left = [size]
            lock = threading.Lock()

            def copy(source: socket.socket, target: socket.socket) -> None:
                try:
                    while data := source.recv(4096):
                        with lock:
                            left[0] -= len(data)
                        if left[0] < 0:
                            break
                        target.sendall(data)
                except OSError:
                    pass
                for end in (inner, outer):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

            threading.Thread(target=copy, args=(outer, inner), daemon=True).start()
            copy(inner, outer)
            server.close()

        threading.Thread(target=forward, daemon=True).start()
        found: tuple[str, int] = server.getsockname()
        return found

    return between


@pytest.mark.parametrize("size", [20, 2000, 100_000])
def test_a_line_that_is_cut_ends_both(
    size: int, graph: Graph, images: Tensor, play: Play, task: Asking
) -> None:
    """In the greeting, early and late."""
    asked = task(graph, images)
    outcomes = play((asked, asked), (graph, graph), images, between=cut_after(size))
    for outcome in outcomes[:2]:
        assert isinstance(outcome, str)
        assert any(word in outcome for word in ("closed the connection", " broke"))
        if size > 10_000:
            assert " in operator " in outcome
    assert isinstance(outcomes[2], str)


def stranger(address: tuple[str, int], data: bytes) -> None:
    with socket.create_connection(address) as line:
        line.sendall(data)
        line.settimeout(3)
        with contextlib.suppress(ConnectionResetError):
            while line.recv(1024):
                pass


GARBAGE = {
    "web": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "got bytes of another protocol"),
    "zeros": (bytes(200), "got bytes of another protocol"),
    "marked": (b"VZ" + b"\xff" * 200, "of kind 65535, expected message 0 of kind 1"),
}


@pytest.mark.parametrize(("data", "reason"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_on_the_port_ends_the_party(
    data: bytes, reason: str, graph: Graph, images: Tensor, task: Asking
) -> None:
    server = listen(("127.0.0.1", 0))
    deaf = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(stranger, server.getsockname(), data)
        peer = accept(server, NAMES[1], timeout_s=3)
        start = time.monotonic()
        with pytest.raises(LinkError, match=reason):
            run_party(0, graph, task(graph, images), peer, Link(deaf[0], NAMES[2], timeout_s=3))
        assert time.monotonic() - start < SECONDS
        sent.result()


def test_a_silent_peer_is_waited_for_no_longer_than_told(
    graph: Graph, images: Tensor, task: Asking
) -> None:
    ends = socket.socketpair()
    deaf = socket.socketpair()
    asked = task(graph, images)
    links = Link(ends[0], NAMES[1], timeout_s=0.3), Link(deaf[0], NAMES[2], timeout_s=0.3)
    start = time.monotonic()
    with pytest.raises(LinkError, match=r"party 1 \(image\) did not answer for 0.3 s"):
        run_party(0, graph, asked, *links)
    assert time.monotonic() - start < SECONDS


def test_a_length_that_was_not_expected_is_never_read() -> None:
    """A peer that announces 2^40 bytes must not make this side reserve them."""
    ends = socket.socketpair()
    link = Link(ends[0], "the peer", timeout_s=1)
    ends[1].sendall(
        b"VZ" + int(Kind.HELLO).to_bytes(2, "big") + bytes(4) + (2**40).to_bytes(8, "big")
    )
    with pytest.raises(LinkError, match="announced 1099511627776 bytes, expected at most 1000"):
        link.receive(Kind.HELLO, 1000)
    other = Link(socket.socketpair()[0], "the peer", timeout_s=1)
    other.close()


def test_messages_of_another_length_than_the_round_s_are_refused() -> None:
    ends = socket.socketpair()
    mine, theirs = (Link(end, "the peer", timeout_s=2) for end in ends)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(theirs.send_words, Kind.ROUND, torch.zeros(3, dtype=torch.int64))
        with pytest.raises(
            LinkError, match="announced 24 bytes, expected 16: it runs another model"
        ):
            mine.exchange([torch.zeros(2, dtype=torch.int64)])


def test_a_reason_from_the_other_side_is_shown_without_control_characters() -> None:
    ends = socket.socketpair()
    mine, theirs = (Link(end, "the peer", timeout_s=2) for end in ends)
    theirs.stop("out of \x1b[31mmemory\n")
    with pytest.raises(LinkError, match=r"^the peer stopped: out of \?\[31mmemory\?$"):
        mine.receive(Kind.SEED)


@pytest.mark.parametrize(
    ("field", "value"), [("shifts", {"norm": 400}), ("model", "a\x1b[2J"), ("role", 9)]
)
def test_a_greeting_out_of_bounds_is_refused(field: str, value: object) -> None:
    ends = socket.socketpair()
    mine, theirs = (Link(end, "the peer", timeout_s=2) for end in ends)
    hello = {"version": "1", "wire": 1, "role": 0, field: value}
    theirs.send(Kind.HELLO, json.dumps(hello).encode())
    with pytest.raises(LinkError, match=f"the peer greeted with a malformed {field}"):
        roles._read_hello(mine)


def test_a_dealer_refuses_impossible_orders() -> None:
    from vitruvius.sim.mpc.parties.correlated import parse_order

    for text in (
        b"{",
        b'{"requests": [{"kind": "evil", "shapes": [[1]], "output": [1]}]}',
        b'{"requests": [{"kind": "square", "shapes": [[99999999, 99999]], "output": [1]}]}',
        b'{"requests": [{"kind": "square", "shapes": [[-1]], "output": [1]}]}',
    ):
        with pytest.raises(VitruviusError, match="expected an order of masks from party 0"):
            parse_order(text)
