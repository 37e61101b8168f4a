"""A run of the accelerator as a timeline: Chrome's trace format, which Perfetto opens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sim.cycle import CycleReport

__all__ = ["timeline_json"]

_TRACKS = ("products", "drain", "norm", "memory reads", "results")


def timeline_json(report: CycleReport) -> str:
    """One track for each unit; a microsecond of the trace is a cycle.

    Format: Trace Event Format, complete events (``ph`` X) and metadata.
    """
    program = report.program
    events: list[dict[str, object]] = [
        {
            "ph": "M",
            "name": "process_name",
            "pid": 0,
            "args": {"name": f"{program.model.name} on {program.machine.name}, 1 us = 1 cycle"},
        }
    ]
    events += [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": track, "args": {"name": name}}
        for track, name in enumerate(_TRACKS)
    ]

    def span(track: int, name: str, begin: int, end: int, **arguments: object) -> None:
        events.append(
            {
                "ph": "X",
                "name": name,
                "pid": 0,
                "tid": track,
                "ts": begin,
                "dur": end - begin,
                "args": arguments,
            }
        )

    for times in report.products:
        lost = {cause: cycles for cause, cycles in times.lost.items() if cycles}
        span(0, times.name, times.first, times.end, image=times.image, macs=times.macs, **lost)
        span(1, times.name, times.end, times.complete, image=times.image)
    norms = program.norms
    for index, (begin, end) in enumerate(report.norms):
        span(2, norms[index % len(norms)].operator, begin, end, image=index // len(norms))
    fetches = program.fetches
    matrix = {step.instruction.b_base: step.name for step in program.steps}
    for index, (begin, end) in enumerate(report.fetches):
        fetch = fetches[index % len(fetches)]
        name = matrix.get(fetch.destination, "") if fetch.target.name == "WEIGHT" else "image"
        span(3, name or fetch.target.name.lower(), begin, end, words=fetch.words)
    for index, image in enumerate(report.images):
        span(4, f"image {index}", image.ready, image.stored)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}) + "\n"
