"""Messages between two processes over one TCP connection, counted where they enter and leave the
socket.

A message is a header of 16 bytes (mark, kind, number, length) and so many bytes of payload. Nothing
is read that was not announced, and nothing is announced that is not expected: a message of another
kind, number or length ends the connection with an error on both sides.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from ....errors import VitruviusError

__all__ = ["HEADER_BYTES", "Kind", "Link", "LinkError", "accept", "listen", "reach"]

_HEADER = struct.Struct(">2sHIQ")
_MARK = b"VZ"
HEADER_BYTES = _HEADER.size
_MOST_TEXT = 1 << 26
_CHUNK = 1 << 18
_RETRY_S = 0.05
_REASON_BYTES = 500
_ALIVE = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
)
"""Seconds after which a silent line is tested, between tests, and tests until it counts as cut."""


class Kind(IntEnum):
    """What a message carries."""

    HELLO = 1
    SEED = 2
    ORDER = 3
    NEXT = 4
    CORRECTIONS = 5
    ROUND = 6
    STOPPED = 7


class LinkError(VitruviusError):
    """The other side is gone, or is not what was expected."""


class Link:
    """One end of a connection to the party called ``peer``.

    ``sent`` and ``received`` count bytes that the socket took and gave, headers included;
    ``messages_sent`` and ``messages_received`` the messages among them. ``timeout_s``: how long to
    wait for a peer that does not move; None waits as long as the connection lives.
    """

    def __init__(self, connection: socket.socket, peer: str, *, timeout_s: float | None) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _ALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.peer = peer
        self.sent = 0
        self.received = 0
        self.messages_sent = 0
        self.messages_received = 0
        self.where = ""
        self._socket = connection
        self._timeout_s = timeout_s
        self._number = {True: 0, False: 0}

    def patience(self, timeout_s: float | None) -> None:
        """From now on waits for a silent peer so long, or as long as the connection lives."""
        self._timeout_s = timeout_s

    def send(self, kind: Kind, payload: bytes) -> None:
        """One message to the peer."""
        self._move(self._framed(kind, memoryview(payload)), None)

    def receive(self, kind: Kind, most: int = _MOST_TEXT) -> bytes:
        """One message of ``kind`` with at most ``most`` bytes."""
        header = bytearray(HEADER_BYTES)
        self._move([], memoryview(header))
        length = self._checked(header, kind)
        if length > most:
            raise LinkError(f"{self.peer} announced {length} bytes, expected at most {most}")
        payload = bytearray(length)
        self._move([], memoryview(payload))
        return bytes(payload)

    def send_words(self, kind: Kind, words: Tensor) -> None:
        """int64 words to the peer."""
        self._move(self._framed(kind, _bytes(words)), None)

    def receive_words(self, kind: Kind, count: int) -> Tensor:
        """Exactly ``count`` int64 words from the peer."""
        return self._words(kind, count, [])

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """One round: every part to the peer, as many words of the peer's back, at the same time."""
        flat = torch.cat([part.reshape(-1) for part in parts])
        theirs = self._words(Kind.ROUND, flat.numel(), self._framed(Kind.ROUND, _bytes(flat)))
        found = torch.split(theirs, [part.numel() for part in parts])
        return [words.reshape(part.shape) for words, part in zip(found, parts, strict=True)]

    def stop(self, reason: str) -> None:
        """Tells the peer, if it can still be reached, why this side ends; then closes."""
        text = reason.encode()[:_REASON_BYTES]
        with contextlib.suppress(VitruviusError, OSError):
            self._timeout_s = 1.0
            self.send(Kind.STOPPED, text)
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _words(self, kind: Kind, count: int, outgoing: list[memoryview]) -> Tensor:
        header = bytearray(HEADER_BYTES)
        rest = self._move(outgoing, memoryview(header))
        length = self._checked(header, kind)
        buffer = np.empty(count, np.int64)
        if length != buffer.nbytes:
            raise LinkError(
                f"{self.peer} announced {length} bytes{self._place}, expected {buffer.nbytes}: it "
                "runs another model, other options or another version"
            )
        rest = self._move(rest, buffer.view(np.uint8).data if count else None)
        self._move(rest, None)
        return torch.from_numpy(buffer)

    def _framed(self, kind: Kind, payload: memoryview) -> list[memoryview]:
        header = _HEADER.pack(_MARK, kind, self._number[True] & 0xFFFFFFFF, len(payload))
        self._number[True] += 1
        self.messages_sent += 1
        return [memoryview(header), *([payload] if len(payload) else [])]

    def _checked(self, header: bytearray, kind: Kind) -> int:
        mark, found, number, length = _HEADER.unpack(header)
        if mark != _MARK:
            raise LinkError(
                f"expected a message of {self.peer}{self._place}, got bytes of another protocol"
            )
        if found == Kind.STOPPED:
            reason = bytearray(min(length, _REASON_BYTES))
            self._move([], memoryview(reason))
            raise LinkError(f"{self.peer} stopped: {_printable(reason)}")
        if found != kind or number != self._number[False] & 0xFFFFFFFF:
            raise LinkError(
                f"{self.peer} sent message {number} of kind {found}{self._place}, expected message "
                f"{self._number[False]} of kind {int(kind)}: it runs another program"
            )
        self._number[False] += 1
        self.messages_received += 1
        return int(length)

    @property
    def _place(self) -> str:
        return f" in {self.where}" if self.where else ""

    def _move(self, outgoing: list[memoryview], incoming: memoryview | None) -> list[memoryview]:
        """Sends and receives at the same time until ``incoming`` is full; without it, until all is
        sent. Returns what is not sent yet.
        """
        waiting = [part for part in outgoing if len(part)]
        missing = incoming
        while missing if incoming is not None else waiting:
            readable, writable, _ = select.select(
                [self._socket] if missing else [],
                [self._socket] if waiting else [],
                [],
                self._timeout_s,
            )
            if not readable and not writable:
                raise LinkError(
                    f"{self.peer} did not answer for {self._timeout_s:g} s{self._place}"
                )
            try:
                if writable:
                    gone = self._socket.send(waiting[0][:_CHUNK])
                    self.sent += gone
                    waiting[0] = waiting[0][gone:]
                    if not waiting[0]:
                        del waiting[0]
                if readable and missing:
                    came = self._socket.recv_into(missing)
                    if not came:
                        raise LinkError(f"{self.peer} closed the connection{self._place}")
                    self.received += came
                    missing = missing[came:]
            except BlockingIOError:
                continue
            except OSError as error:
                raise LinkError(
                    f"the connection to {self.peer} broke{self._place}: {error.strerror}"
                ) from None
        return waiting


def _bytes(words: Tensor) -> memoryview:
    return words.contiguous().numpy().reshape(-1).view(np.uint8).data


def _printable(text: bytes | bytearray) -> str:
    found = bytes(text).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in found)


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket; port 0 lets the system choose one."""
    host, port = address
    try:
        return socket.create_server((host, port), backlog=4)
    except OSError as error:
        raise VitruviusError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def accept(server: socket.socket, peer: str, *, timeout_s: float) -> Link:
    """The first connection to ``server``, from whom ``peer`` is expected."""
    server.settimeout(timeout_s)
    try:
        connection, _ = server.accept()
    except TimeoutError:
        raise LinkError(f"{peer} did not connect within {timeout_s:g} s") from None
    return Link(connection, peer, timeout_s=timeout_s)


def reach(address: tuple[str, int], peer: str, *, timeout_s: float) -> Link:
    """A connection to ``peer``, tried again until it listens or time is over."""
    host, port = address
    end = time.monotonic() + timeout_s
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=timeout_s)
            return Link(connection, peer, timeout_s=timeout_s)
        except OSError as error:
            if time.monotonic() > end or isinstance(error, socket.gaierror):
                raise LinkError(
                    f"cannot reach {peer} at {host}:{port}: {error.strerror or error}"
                ) from None
            time.sleep(_RETRY_S)
