"""``vitruvius estimate``: what a model costs, on one or several targets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError, nearest
from .options import (
    Calibration,
    JsonFile,
    MachineName,
    MemoryGap,
    MemoryLatency,
    MemoryOutstanding,
    ModelName,
    Weights,
)
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..models.zoo.network_file import ZooNetwork
    from ..sim.npu.target import NpuTarget

__all__ = ["estimate"]


class _Phase(StrEnum):
    """How a language model runs."""

    PREFILL = "prefill"
    DECODE = "decode"
    BOTH = "both"


def estimate(
    model: ModelName,
    on: Annotated[
        list[str],
        typer.Option(
            "--on",
            metavar="BACKEND:TARGET",
            help="Where, such as fpga:zcu102, npu:edge32, mpc:crypten-wan or optical:4f-2mhz; "
            "repeatable. Several with commas between them are also put side by side, in one "
            "record.",
        ),
    ] = ["fpga:zcu102"],  # noqa: B006
    machine: MachineName = "small",
    latency: MemoryLatency = 100,
    gap: MemoryGap = 0,
    outstanding: MemoryOutstanding = 16,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="WIDTHS",
            help="On NPUs: bits of weights and activations, w8a8, w8a16, w4a16 or w4a8, and how "
            "many weights share a scale, such as w4a16g32. Default: the target's.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="TOKENS,...",
            help="Of a language model: lengths of its context. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        _Phase | None,
        typer.Option(
            "--phase",
            help="Of a language model: the whole context at once, one token behind it, or both.",
            show_default=False,
        ),
    ] = None,
    piece: Annotated[
        int | None,
        typer.Option(
            "--piece",
            metavar="TOKENS",
            help="Of a language model: prefill in pieces of so many tokens. Default: in one.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="On NPUs, optics and as secure inference: square images of another size, for a "
            "zoo model or a model's TOML file without weights.",
            show_default=False,
        ),
    ] = None,
    mpc: Annotated[
        list[str] | None,
        typer.Option(
            "--mpc",
            metavar="KEY=VALUE,...",
            help="As secure inference: maximum=tree, division=element, weights=once, "
            "rsqrt=goldschmidt, heads=apart, gelu=sigmoid or pieces; softmax=relu, 2quad or scale "
            "and gelu=quad, relu or identity replace them; parties, dealer, round. An unknown key "
            "lists them all.",
            show_default=False,
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart",
            metavar="FILE",
            help="As secure inference: draw rounds, bytes and latency by kind of operator, a bar "
            "for each mpc target, as .svg or .png.",
            show_default=False,
        ),
    ] = None,
    optical: Annotated[
        list[str] | None,
        typer.Option(
            "--optical",
            metavar="KEY=VALUE,...",
            help="On 4f optics: tiling=channel, batch=64, map=conv+linear, scheme=reference, "
            "timing=serial, read=results, photons=1e3, electronics=npu:edge16, masks=given, "
            "inputs=non-negative, or any figure of the system. An unknown key lists them all.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Estimate cycles, latency and energy of one image, operator by operator.

    Cycles are those of the cycle simulator, which equal the generated hardware's, on a memory that
    answers as --latency, --gap and --outstanding say: assumptions, like the clock. Energy comes
    from a table of coefficients; every figure names its source, every assumption is listed. MODEL
    may also be a file that quantize wrote, for FPGAs.

    On an NPU cycles are by formula, from the traced model; --machine and memory are the target's.
    A language model of the zoo is estimated for prefill and decode over --context.

    On mpc:PROTOCOL-NETWORK (or mpc:PROTOCOL:FILE.toml) the model is computed on shares: rounds and
    bytes of one party, and latency; 'vitruvius mpc protocols' and 'mpc networks' list both.

    On optical:SYSTEM or optical:FILE.toml convolutions, linear layers and scores go through a 4f
    system, everything else runs on an NPU: one image alone, and images at full planes.

    Examples: vitruvius estimate vit_digits --on fpga:zcu102,npu:edge16 --machine medium;
    vitruvius estimate lfm2_1.2b --on npu:sa8295p --precision w4a16 --context 1,1024,4096;
    vitruvius estimate vit_digits --on mpc:semi2k-wan,mpc:crypten-lan --mpc softmax=relu
    """
    output = Output(json)
    from ..fpga_targets.device import device_names, load_target
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..optical.estimate import OpticalEstimate, estimate_optical
    from ..optical.target import load_optical, optical_names
    from ..reports.beside import beside_record, beside_tables
    from ..reports.mpc import mpc_estimate_table
    from ..reports.mpc_chart import check_chart, mpc_chart
    from ..reports.optical import optical_estimate_table
    from ..reports.table import estimate_table
    from ..sim.estimate import Estimate, estimate_fpga
    from ..sim.mpc.report import MpcEstimate, estimate_mpc
    from ..sim.mpc.target import load_mpc, mpc_settings, mpc_targets
    from ..sim.npu.report import estimate_npu
    from ..sim.npu.target import load_npu, npu_names, with_precision
    from .workload import load_workload, quantized, trace_workload

    together = any("," in target for target in on)
    on = [name.strip() for target in on for name in target.split(",")]
    for target in on:
        if not target.startswith(("fpga:", "npu:", "mpc:", "optical:")):
            known = [
                *(f"fpga:{name}" for name in device_names()),
                *(f"npu:{n}" for n in npu_names()),
                *(name for name in mpc_targets() if name.endswith(("-lan", "-wan"))),
                *(f"optical:{name}" for name in optical_names()),
            ]
            raise VitruviusError(f"unknown target '{target}': {nearest(target, known)}")
    if together and (twice := sorted({target for target in on if on.count(target) > 1})):
        raise VitruviusError(f"--on: expected different targets, got {twice[0]} more than once")
    npus = {target: load_npu(target) for target in on if target.startswith("npu:")}
    if precision is not None:
        npus = {target: with_precision(npu, precision) for target, npu in npus.items()}
    secure = [target for target in on if target.startswith("mpc:")]
    settings = mpc_settings(mpc or [])
    mpcs = {target: load_mpc(target, settings) for target in secure}
    if not mpcs and (mpc or chart is not None):
        raise VitruviusError(
            f"{'--mpc' if mpc else '--chart'} is for secure inference, and {on[0]} is none; "
            "expected --on mpc:PROTOCOL-NETWORK"
        )
    optics = {
        target: load_optical(target, optical or [])
        for target in on
        if target.startswith("optical:")
    }
    if optical and not optics:
        raise VitruviusError(
            f"--optical is for 4f optics, and {on[0]} is none; expected --on optical:SYSTEM"
        )
    if chart is not None:
        check_chart(chart)
    fpgas = [target for target in on if target.startswith("fpga:")]
    for target in fpgas:
        load_target(target)
    given = {"--precision": precision, "--context": context, "--phase": phase, "--piece": piece}
    for option, value in {**given, "--image-size": image_size}.items():
        others = fpgas if option == "--image-size" else [*fpgas, *mpcs, *optics]
        if others and value is not None:
            raise VitruviusError(f"{option} is for NPUs, and {others[0]} is none")
    if (language := _language(model)) is not None:
        if others := [*fpgas, *mpcs, *optics]:
            raise VitruviusError(
                f"{others[0]}: {model} is a language model, which is estimated on NPUs only"
            )
        if weights is not None or image_size is not None:
            raise VitruviusError(f"{model} is estimated by its shapes: no --weights, no images")
        _estimate_language(output, language, npus, context, phase or _Phase.BOTH, piece)
        return
    for option, value in (("--context", context), ("--phase", phase), ("--piece", piece)):
        if value is not None:
            raise VitruviusError(f"{option}: {model} is no language model of the zoo")
    estimates: dict[str, Estimate] = {}
    graph = None
    if fpgas:
        parameters = load_machine(machine)
        source = quantized(model, weights=weights, calibration=calibration)
        graph = source.graph
        program = compile_model(source.model, parameters)
        memory = MemoryModel(latency=latency, gap=gap, outstanding=outstanding)
        for target in fpgas:
            estimates[target] = estimate_fpga(source.model.name, program, target, memory=memory)
    if npus or mpcs or optics:
        if model.endswith(".safetensors"):
            raise VitruviusError(
                f"{[*npus, *mpcs, *optics][0]}: expected a model to trace, got {model}, a file "
                "that quantize wrote, which does not hold the graph"
            )
        graph = graph or trace_workload(
            load_workload(model, weights, shapes=True, image_size=image_size)
        )
        for target, npu in npus.items():
            estimates[target] = estimate_npu(graph, npu)
        for target, chosen in mpcs.items():
            estimates[target] = estimate_mpc(graph, chosen)
        for target, system in optics.items():
            estimates[target] = estimate_optical(graph, system)
    found = [estimates[target] for target in on]
    if together and len(found) > 1:
        for part in beside_tables(found, graph):
            output.console.print(part)
    for item in found:
        if isinstance(item, MpcEstimate):
            output.console.print(mpc_estimate_table(item))
        elif isinstance(item, OpticalEstimate):
            output.console.print(optical_estimate_table(item))
        else:
            output.console.print(estimate_table(item))
    if chart is not None:
        mpc_chart([item for item in estimates.values() if isinstance(item, MpcEstimate)], chart)
        output.console.print(f"wrote {chart}")
    if together and len(found) > 1:
        output.write_json(beside_record(found, graph))
    else:
        output.write_json([item.record() for item in found])


def _language(model: str) -> ZooNetwork | None:
    """The zoo's language model that ``model`` names, or the one that a TOML file describes."""
    from ..models.resolve import zoo_entry
    from ..models.zoo.network_file import ZooNetwork

    entry = zoo_entry(model)
    return entry if isinstance(entry, ZooNetwork) and entry.kind == "language" else None


def _estimate_language(
    output: Output,
    entry: ZooNetwork,
    npus: Mapping[str, NpuTarget],
    context: str | None,
    phase: _Phase,
    piece: int | None,
) -> None:
    from ..models.phases import PHASES
    from ..models.zoo.language_config import LanguageConfig
    from ..reports.language import language_table
    from ..sim.npu.language import language_report

    assert isinstance(entry.config, LanguageConfig)
    contexts = [entry.config.context] if context is None else _lengths(context)
    phases = [item for item in PHASES if phase in (_Phase.BOTH, item)]
    reports = [
        language_report(entry.name, entry.config, npu, contexts, phases, piece=piece)
        for npu in npus.values()
    ]
    for report in reports:
        output.console.print(language_table(report))
    output.write_json([report.record() for report in reports])


def _lengths(text: str) -> list[int]:
    """Whole numbers with commas between them, in order, each once."""
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise VitruviusError(
            f"--context: expected numbers of tokens such as 1,1024,4096, got '{text}'"
        ) from None
