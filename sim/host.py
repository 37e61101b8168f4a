"""The host of an accelerator in Python: follows the same scripts as the harness in C++.

The steps are written once, against the `Host` protocol; their awaits wait for the simulator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from ..hwgen.axi.register_map import ErrorCode

__all__ = ["Host", "ScriptError", "follow"]

_DONE, _PAUSED = 1 << 1, 1 << 2
_ENDING = {code.value for code in ErrorCode} - {ErrorCode.NONE, ErrorCode.BUSY}
_PROGRESS_S = 0.2


class Host(Protocol):
    """What a host can do to an accelerator and to the memory beside it."""

    async def reset(self, cycles: int) -> None:
        """Holds ``rst`` high."""

    async def write(self, address: int, value: int) -> None:
        """Writes a register."""

    async def read(self, address: int) -> int:
        """Reads a register."""

    async def sleep(self, cycles: int) -> None:
        """Runs the clock."""

    def timing(self, latency: int, gap: int, outstanding: int) -> None:
        """What the memory's answers are to follow, where it can."""

    def store(self, address: int, data: bytes) -> None:
        """Puts bytes into the memory."""

    def load(self, address: int, length: int) -> bytes:
        """Bytes of the memory."""

    @property
    def cycles(self) -> int:
        """Clock cycles simulated so far."""

    @property
    def answers(self) -> list[int]:
        """The cycle of every answer to a write burst."""


class ScriptError(Exception):
    """A step that failed; ``kind`` as in `NativeError`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


async def follow(host: Host, folder: Path) -> None:
    """Follows ``script.txt`` in ``folder`` and leaves ``outcome.json`` and the bytes there."""
    follower = _Follower(host, folder)
    error = None
    try:
        for line in (folder / "script.txt").read_text().splitlines():
            verb, *words = line.split()
            if verb not in follower.verbs:
                raise ScriptError("script", f"this engine has no step '{verb}'")
            await follower.verbs[verb](words)
    except ScriptError as failure:
        error = {"kind": failure.kind, "rule": "", "text": str(failure), "cycle": host.cycles}
    answers = host.answers
    traffic = {
        "read_bursts": 0,
        "read_beats": 0,
        "write_bursts": len(answers),
        "write_beats": 0,
        "unwritten_bytes": 0,
        "first_unwritten": 0,
        "answers": answers,
    }
    outcome = {
        "error": error,
        "records": follower.records,
        "cycles": host.cycles,
        "wall_s": time.perf_counter() - follower.began,
        "traffic": traffic,
    }
    _replace(folder / "outcome.json", outcome)


class _Follower:
    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.records: dict[str, list[int]] = {}
        self.product = -1
        self.began = self.told = time.perf_counter()
        self.verbs: dict[str, Callable[[list[str]], Awaitable[None]]] = {
            "memory": self._memory,
            "reset": self._reset,
            "write": self._write,
            "read": self._read,
            "expect": self._expect,
            "wait_done": self._wait_done,
            "sleep": self._sleep,
            "read_debug": self._read_debug,
            "load": self._load,
            "dump": self._dump,
            "load_window": self._load_window,
            "dump_window": self._dump_window,
        }

    def _note(self, name: str, value: int) -> None:
        self.records[name] = [value, self.host.cycles]

    def _tell(self) -> None:
        """How far the run is, now and then."""
        now = time.perf_counter()
        if now - self.told >= _PROGRESS_S:
            self.told = now
            cycles = self.host.cycles
            rate = cycles / (now - self.began)
            state = {"cycles": cycles, "cycles_per_s": rate, "product": self.product}
            _replace(self.folder / "progress.json", state)

    async def _memory(self, words: list[str]) -> None:
        latency, gap, outstanding = map(int, words)
        self.host.timing(latency, gap, outstanding)

    async def _reset(self, words: list[str]) -> None:
        await self.host.reset(int(words[0]))

    async def _write(self, words: list[str]) -> None:
        await self.host.write(_number(words[0]), _number(words[1]))

    async def _read(self, words: list[str]) -> None:
        self._note(words[1], await self.host.read(_number(words[0])))

    async def _expect(self, words: list[str]) -> None:
        address, wanted, mask = map(_number, words)
        found = await self.host.read(address)
        if (found ^ wanted) & mask:
            raise ScriptError(
                "expect", f"register {address:#05x}: expected {wanted:#010x}, got {found:#010x}"
            )

    async def _wait_done(self, words: list[str]) -> None:
        address, most, poll = map(_number, words[:3])
        began = self.host.cycles
        while True:
            status = await self.host.read(address)
            self.product = status >> 16
            self._tell()
            if status & (_DONE | _PAUSED) or status >> 4 & 15 in _ENDING:
                break
            if self.host.cycles - began >= most:
                raise ScriptError(
                    "timeout", f"expected an end within {most} cycles, STATUS is {status:#010x}"
                )
            await self.host.sleep(poll)
        self._note(words[3], status)

    async def _sleep(self, words: list[str]) -> None:
        await self.host.sleep(int(words[0]))

    async def _read_debug(self, words: list[str]) -> None:
        select, data, first, count, slices = map(_number, words[:5])
        found = bytearray()
        for word in range(first, first + count):
            await self.host.write(select, word)
            for part in range(slices):
                found += (await self.host.read(data + 4 * part)).to_bytes(4, "little")
        self._leave(words[5], bytes(found))

    async def _load(self, words: list[str]) -> None:
        self.host.store(_number(words[0]), (self.folder / words[1]).read_bytes())

    async def _dump(self, words: list[str]) -> None:
        self._leave(words[2], self.host.load(_number(words[0]), int(words[1])))

    async def _load_window(self, words: list[str]) -> None:
        select, data, address = map(_number, words[:3])
        await self.host.write(select, address)
        contents = (self.folder / words[3]).read_bytes()
        for at in range(0, len(contents), 4):
            await self.host.write(data, int.from_bytes(contents[at : at + 4], "little"))

    async def _dump_window(self, words: list[str]) -> None:
        select, data, address, length = map(_number, words[:4])
        await self.host.write(select, address)
        found = bytearray()
        for _ in range(0, length, 4):
            found += (await self.host.read(data)).to_bytes(4, "little")
        self._leave(words[4], bytes(found[:length]))

    def _leave(self, name: str, data: bytes) -> None:
        (self.folder / f"{name}.bin").write_bytes(data)
        self._note(name, len(data))


def _number(text: str) -> int:
    return int(text, 0)


def _replace(path: Path, state: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(state))
    part.replace(path)
