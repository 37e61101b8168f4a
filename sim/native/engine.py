"""Runs scripts on a native build: files in, outcome out, progress and interruption on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from ...errors import VitruviusError
from .build import NativeBuild
from .script import Script

__all__ = [
    "MemoryTiming",
    "NativeError",
    "NativeOutcome",
    "NativeProgress",
    "NativeRun",
    "Traffic",
]


class MemoryTiming(Protocol):
    """How fast the memory behind the AXI4 port answers; `hwgen.axi.memory_model` has the rules.

    latency: cycles from a burst's acceptance to its first beat, at least 1. gap: idle cycles
    between two beats. outstanding: bursts accepted and not yet answered, each direction.
    """

    @property
    def latency(self) -> int: ...
    @property
    def gap(self) -> int: ...
    @property
    def outstanding(self) -> int: ...


@dataclass(frozen=True)
class NativeProgress:
    """How far a run is: cycles, their rate, the product that the last STATUS named, -1 if none."""

    cycles: int
    cycles_per_s: float
    product: int


@dataclass(frozen=True)
class Traffic:
    """What crossed the memory port.

    unwritten_bytes: bytes read that nothing ever wrote (they read as 0xA5); first_unwritten:
    the address of the first, -1 if there is none.
    """

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    unwritten_bytes: int
    first_unwritten: int


@dataclass(frozen=True)
class NativeOutcome:
    """What a run left: under the names of the script, register values, bytes, and the clock
    cycle at which each was taken.
    """

    cycles: int
    wall_s: float
    values: Mapping[str, int]
    data: Mapping[str, bytes]
    at_cycle: Mapping[str, int]
    traffic: Traffic

    @property
    def cycles_per_s(self) -> float:
        return self.cycles / self.wall_s if self.wall_s else 0.0


class NativeError(VitruviusError):
    """A run that failed.

    kind: 'protocol' (rule has the rule's name), 'control' (the register port misbehaved or did
    not answer), 'timeout', 'expect', 'script' or 'crash'. cycle: the clock cycle, -1 if unknown.
    """

    def __init__(self, text: str, *, kind: str, rule: str = "", cycle: int = -1) -> None:
        super().__init__(text)
        self.kind, self.rule, self.cycle = kind, rule, cycle


class NativeRun:
    """Runs scripts on one build; runs are independent and may go on at the same time."""

    def __init__(self, build: NativeBuild) -> None:
        self.build = build

    def run(
        self,
        script: Script,
        *,
        memory: Sequence[tuple[int, bytes | Path]] = (),
        model: MemoryTiming | None = None,
        jitter: int | None = None,
        waves: Path | None = None,
        progress: Callable[[NativeProgress], None] | None = None,
        stop: Event | None = None,
    ) -> NativeOutcome:
        """Resets the accelerator and follows ``script``.

        memory: what lies in memory at the start, (address, contents). model: the memory's timing;
        None is latency 1, gap 0, outstanding 4. jitter: a seed for random waits on every channel
        on top of the model, for runs in which only values are compared. waves: where to leave an
        FST file; the build must have been made with ``trace``. stop: once set, the run is ended.

        Raises
        ------
        NativeError
            A bus rule was broken, a wait ran out, an expectation failed, or the run was stopped.
        VitruviusError
            An argument is out of range or a file cannot be read or written.
        """
        raise NotImplementedError
