"""A co-simulation job and its outcome on disk, as JSON: the simulator may be another process."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .host import ImageRun

__all__ = ["Job", "JobImage", "Outcome", "read_outcome", "read_progress"]

_JOB, _OUTCOME, _PROGRESS = "job.json", "outcome.json", "progress.json"


@dataclass(frozen=True)
class JobImage:
    """One image: the beats of its stream, and the operators whose tensors are to be read on the
    way.
    """

    beats: list[int]
    tensors: list[str]


@dataclass(frozen=True)
class Job:
    """The images to run on the accelerator in the same folder (see `hwgen.manifest`)."""

    images: list[JobImage]

    def write(self, folder: Path) -> None:
        """Leaves the job in ``folder``."""
        _replace(folder / _JOB, json.dumps([asdict(image) for image in self.images]))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job in ``folder``."""
        images = json.loads((folder / _JOB).read_text())
        return cls([JobImage(**image) for image in images])


@dataclass
class Outcome:
    """Collects runs, keeps a progress file up to date, and leaves the whole outcome in ``folder``.

    Cycles and wall time count from the first image, programming not included.
    """

    folder: Path
    first_cycle: int
    runs: list[ImageRun] = field(default_factory=list)
    cycles: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, run: ImageRun, cycle: int) -> None:
        """Notes a finished image at clock cycle ``cycle``."""
        self.runs.append(run)
        self.cycles = cycle - self.first_cycle
        _replace(self.folder / _PROGRESS, json.dumps(self._state()))

    def save(self) -> None:
        """Leaves the outcome in the folder."""
        state = {**self._state(), "runs": [asdict(run) for run in self.runs]}
        _replace(self.folder / _OUTCOME, json.dumps(state))

    def _state(self) -> dict[str, float]:
        wall_s = time.perf_counter() - self.started
        return {"images": len(self.runs), "cycles": self.cycles, "wall_s": wall_s}


def read_outcome(folder: Path) -> tuple[list[ImageRun], int, float]:
    """(runs, simulated cycles, wall seconds) that a finished job left in ``folder``."""
    state = json.loads((folder / _OUTCOME).read_text())
    return [ImageRun(**run) for run in state["runs"]], state["cycles"], state["wall_s"]


def read_progress(folder: Path) -> tuple[int, int, float]:
    """(images, cycles, wall seconds) so far; zeros before the first image is done."""
    try:
        state = json.loads((folder / _PROGRESS).read_text())
    except FileNotFoundError:
        return 0, 0, 0.0
    return state["images"], state["cycles"], state["wall_s"]


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
