"""Arguments and options that several verbs share, so that each means the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "Calibration",
    "Engine",
    "EngineName",
    "JsonFile",
    "MachineName",
    "MemoryGap",
    "MemoryLatency",
    "MemoryOutstanding",
    "ModelName",
    "OutFolder",
    "Task",
    "Unmapped",
    "UnmappedPolicy",
    "Weights",
]


class Unmapped(StrEnum):
    """What to do with operators that have no rule."""

    ERROR = "error"
    HOST = "host"


class Engine(StrEnum):
    """What drives the verilated design."""

    NATIVE = "native"
    COCOTB = "cocotb"


ModelName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A zoo name (see 'vitruvius models'), a model's TOML file, file.py:factory, "
        "package.module:factory, a saved program (.pt2), or a Hugging Face folder with config.json "
        "and safetensors. "
        "The factory returns a torch module, or (module, example inputs).",
        show_default=False,
    ),
]

JsonFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the answer as JSON; '-' is standard output.",
        show_default=False,
    ),
]

OutFolder: TypeAlias = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the files; made if need be.")
]

MachineName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--machine",
        metavar="NAME|FILE",
        help="small, medium, large, base, experts, or a machine's TOML file.",
    ),
]

EngineName: TypeAlias = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="What drives the simulator: C++, or cocotb with cocotbext-axi.",
    ),
]

MemoryLatency: TypeAlias = Annotated[
    int,
    typer.Option(
        "--latency", metavar="CYCLES", min=1, help="Cycles until external memory answers a burst."
    ),
]

MemoryGap: TypeAlias = Annotated[
    int,
    typer.Option(
        "--gap", metavar="CYCLES", min=0, help="Idle cycles between the beats of external memory."
    ),
]

MemoryOutstanding: TypeAlias = Annotated[
    int,
    typer.Option(
        "--outstanding",
        metavar="BURSTS",
        min=1,
        help="Bursts that external memory takes at a time.",
    ),
]

Task: TypeAlias = Annotated[
    int,
    typer.Option(
        "--task",
        metavar="N",
        min=0,
        help="Whose gates are used, of a model with experts for several tasks.",
    ),
]

Weights: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Safetensors file, or folder with one, to load into the module first; the names of "
        "timm and Hugging Face are known.",
        show_default=False,
    ),
]

Calibration: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER|FILE",
        help="Images to calibrate on: a folder of pictures, or floats [n, C, H, W] in a .npy or "
        ".safetensors file. Default: the training images of the model's own data set.",
        show_default=False,
    ),
]

UnmappedPolicy: TypeAlias = Annotated[
    Unmapped,
    typer.Option(
        "--unmapped",
        help="An operator without a rule is an error, or stays on the host and is listed.",
    ),
]
