"""Runs scripts on a native build: files in, outcome out, progress and interruption on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ...errors import VitruviusError
from ...hwgen.axi.memory_model import MemoryModel
from .build import NativeBuild
from .script import Script

__all__ = [
    "NativeError",
    "NativeOutcome",
    "NativeProgress",
    "NativeRun",
    "ScriptRun",
    "Traffic",
]

_RESET_CYCLES = 4
_POLL_S = 0.05
_TAIL_LINES = 10
_LOG, _WAVES = "simulation.log", "waves.fst"
_MAX_JITTER_SEED = (1 << 64) - 6
"""Channels take the seeds that follow."""


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
    the address of the first, 0 if there is none. answers: the clock cycle of every answer to a
    write burst.
    """

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    unwritten_bytes: int
    first_unwritten: int
    answers: Sequence[int]


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

    kind: 'protocol' (rule has the rule's name), 'control' (a register access was refused or not
    answered), 'timeout', 'expect', 'script', 'crash' or 'stopped'. cycle: the clock cycle, -1 if
    unknown.
    """

    def __init__(self, text: str, *, kind: str, rule: str = "", cycle: int = -1) -> None:
        super().__init__(text)
        self.kind, self.rule, self.cycle = kind, rule, cycle


class ScriptRun:
    """Runs scripts on one build; runs are independent and may go on at the same time.

    A process follows ``script.txt`` in a folder of its own and leaves ``outcome.json`` there; which
    process is for the engine to say (`command`). jitters, traces: whether it takes ``--jitter`` and
    can write waves.
    """

    jitters = False
    traces = False

    def command(self, folder: Path) -> tuple[list[str], Mapping[str, str] | None]:
        """The command that follows the script in ``folder``, and its environment; None for this
        process's own.
        """
        raise NotImplementedError

    def run(
        self,
        script: Script,
        *,
        memory: Sequence[tuple[int, bytes | Path]] = (),
        model: MemoryModel | None = None,
        jitter: int | None = None,
        waves: Path | None = None,
        progress: Callable[[NativeProgress], None] | None = None,
        stop: Event | None = None,
    ) -> NativeOutcome:
        """Resets the accelerator and follows ``script``.

        memory: what lies in memory at the start, (address, contents). model: the memory's timing;
        None is latency 1, no gap. jitter: a seed for random waits on every channel on top of the
        model, and for what on-chip memories hold before they are written, which is zeros otherwise;
        for runs in which only values are compared. waves: where to leave an FST file, also
        of a run that fails; the build must have been made with ``trace``. stop: once set, the run
        is ended.

        Raises
        ------
        NativeError
            A bus rule was broken, a wait ran out, an expectation failed, or the run was stopped.
        VitruviusError
            An argument is out of range or a file cannot be read or written.
        """
        if jitter is not None and not 0 <= jitter <= _MAX_JITTER_SEED:
            raise VitruviusError(f"jitter: expected a seed of 64 bits, got {jitter}")
        if jitter is not None and not self.jitters:
            raise VitruviusError("jitter: expected engine native, got one without")
        if waves is not None and not self.traces:
            raise VitruviusError("waves: expected a build made with trace, got one without")
        with tempfile.TemporaryDirectory(prefix="vitruvius-native-") as scratch:
            folder = Path(scratch)
            start = Script(blob_prefix="start")
            for address, contents in memory:
                start.load(address, contents)
            for name, blob in {**start.blobs, **script.blobs}.items():
                _leave(folder / name, blob)
            timing = model or MemoryModel(latency=1)
            lines = [
                *start.lines,
                f"memory {timing.latency} {timing.gap} {timing.outstanding}",
                f"reset {_RESET_CYCLES}",
                *script.lines,
            ]
            (folder / "script.txt").write_text("\n".join(lines) + "\n")
            try:
                options = [] if jitter is None else ["--jitter", str(jitter)]
                options += [] if waves is None else ["--waves", _WAVES]
                code = self._follow(folder, options, progress, stop)
            finally:
                if waves is not None:
                    _keep(folder / _WAVES, waves)
            return _outcome(folder, code)

    def _follow(
        self,
        folder: Path,
        options: list[str],
        progress: Callable[[NativeProgress], None] | None,
        stop: Event | None,
    ) -> int:
        """Runs the program in ``folder`` to its end, and gives its exit code."""
        command, environment = self.command(folder)
        with (folder / _LOG).open("w") as log:
            # A session of its own: an interrupt from the keyboard reaches Python only.
            process = subprocess.Popen(
                [*command, *options],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            while not _ended(process):
                if stop is not None and stop.is_set():
                    raise NativeError("native run: stopped", kind="stopped")
                if progress is not None and (state := _progress(folder)) is not None:
                    progress(state)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return process.returncode


class NativeRun(ScriptRun):
    """Runs scripts on a build whose memory and clock are C++."""

    jitters = True

    def __init__(self, build: NativeBuild) -> None:
        self.build = build
        self.traces = build.trace

    def command(self, folder: Path) -> tuple[list[str], Mapping[str, str] | None]:
        return [str(self.build.executable)], None


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended, after a short wait for it."""
    try:
        process.wait(timeout=_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _leave(file: Path, contents: bytes | Path) -> None:
    """Puts contents where the harness finds them; a file is linked, not copied."""
    if isinstance(contents, Path):
        if not contents.is_file():
            raise VitruviusError(f"native run: expected a file to load, got {contents}")
        file.symlink_to(contents.resolve())
    else:
        file.write_bytes(contents)


def _keep(found: Path, waves: Path) -> None:
    if not found.is_file():
        return
    try:
        waves.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, waves)
    except OSError as error:
        raise VitruviusError(f"waves: cannot write {waves}: {error.strerror}") from None


def _progress(folder: Path) -> NativeProgress | None:
    try:
        return NativeProgress(**json.loads((folder / "progress.json").read_text()))
    except FileNotFoundError:
        return None


def _outcome(folder: Path, code: int) -> NativeOutcome:
    try:
        state: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    except FileNotFoundError:
        tail = "\n".join((folder / _LOG).read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise NativeError(
            f"native run: the simulation ended with exit code {code}: {tail}", kind="crash"
        ) from None
    if error := state["error"]:
        rule = f"{error['rule']}: " if error["rule"] else ""
        raise NativeError(
            f"native run: cycle {error['cycle']}: {rule}{error['text']}",
            kind=error["kind"],
            rule=error["rule"],
            cycle=error["cycle"],
        )
    records: dict[str, list[int]] = state["records"]
    files = {name: folder / f"{name}.bin" for name in records}
    data = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
    return NativeOutcome(
        cycles=state["cycles"],
        wall_s=state["wall_s"],
        values={name: value for name, (value, _) in records.items() if name not in data},
        data=data,
        at_cycle={name: cycle for name, (_, cycle) in records.items()},
        traffic=Traffic(**state["traffic"]),
    )
