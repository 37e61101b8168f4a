"""Writes docs/coverage.md: what of the vision models of transformers becomes a graph.

    .venv/bin/python benchmarks/coverage.py [FAMILY ...]

Every family of ``families.py`` is traced and compared with its module. With names, only those are
measured and printed, and the page stays.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from vitruvius.benchmarks.families import FAMILIES, Family, build
from vitruvius.models.graph import Graph, execute_all
from vitruvius.models.trace import trace

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
BATCH = 2
TOLERANCE = 1e-4

__all__ = ["Row", "line", "main", "measure", "page"]


@dataclass(frozen=True)
class Row:
    """What was measured of one family.

    ``error`` is the largest difference between graph and module on a batch of two random images,
    over the largest value of the output. ``constant`` and ``unread`` are multiply-accumulates that
    torch counts and the graph does not have: of parameters only, and of no output.
    """

    family: Family
    error: float
    macs: int
    counted: int
    constant: int
    unread: int
    operators: int
    regions: int
    batched: bool
    unmapped: tuple[tuple[str, str, int], ...]
    seconds: float

    @property
    def unexplained(self) -> int:
        """What neither cause accounts for."""
        return self.counted - self.macs - self.constant - self.unread


def measure(family: Family) -> Row:
    """Traces one family and compares it with its module and with torch's own counter."""
    module, image = build(family)
    start = time.process_time()
    graph = trace(module, (image,), name=family.name, unmapped="host")
    seconds = time.process_time() - start
    counted, constant, unread = counts(module, image)
    hosts = Counter((item.target, item.reason) for item in graph.unmapped)
    return Row(
        family=family,
        error=difference(graph, module, image),
        macs=sum(op.macs for op in graph.operators()),
        counted=counted,
        constant=constant,
        unread=unread,
        operators=len(graph.operators()),
        regions=len(graph.regions),
        batched=graph.batched,
        unmapped=tuple((*key, count) for key, count in sorted(hosts.items())),
        seconds=seconds,
    )


def difference(graph: Graph, module: nn.Module, image: Tensor) -> float:
    """The largest error of any output, relative to that output's largest value."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(BATCH, *image.shape[1:], generator=generator)
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(module(images))
    expected = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    errors = []
    for ours, theirs in zip(execute_all(graph, images), expected, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"{graph.name}: {ours.shape} is not {theirs.shape}")
        errors.append(float((ours - theirs).abs().max() / theirs.abs().max()))
    return max(errors)


def counts(module: nn.Module, image: Tensor) -> tuple[int, int, int]:
    """Multiply-accumulates by ``torch.utils.flop_counter``: all, those of parameters only, and
    those that no output reads.

    The whole is counted while the module runs. The other two come from the exported program, node
    by node with the counter's own formulas. The processor's fused attention is switched off,
    because the counter does not know it.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter:
            module(image)
        program = export(module, (image,)).run_decompositions()
    driven, read = reach(program)
    constant = unread = 0
    for node in program.graph.nodes:
        flops = flops_of(node)
        constant += flops if node not in driven else 0
        unread += flops if node in driven and node not in read else 0
    return counter.get_total_flops() // 2, constant // 2, unread // 2


def reach(program: ExportedProgram) -> tuple[set[Node], set[Node]]:
    """The nodes that depend on an input, and those that an output depends on."""
    signature = program.graph_signature
    driven: set[Node] = set()
    for node in program.graph.nodes:
        own = node.op == "placeholder" and node.name in signature.user_inputs
        if own or any(source in driven for source in node.all_input_nodes):
            driven.add(node)
    read: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node.op == "output" or node in read:
            read.update((node, *node.all_input_nodes))
    return driven, read


def flops_of(node: Node) -> int:
    packet = getattr(node.target, "overloadpacket", None)
    if node.op != "call_function" or packet not in flop_registry:
        return 0

    def value(argument: object) -> object:
        return argument.meta["val"] if isinstance(argument, Node) else argument

    arguments = [value(argument) for argument in node.args]
    keywords = {name: value(argument) for name, argument in node.kwargs.items()}
    return int(flop_registry[packet](*arguments, **keywords, out_val=node.meta["val"]))


def line(row: Row) -> str:
    """One row of the first table, without what differs from run to run."""
    family = row.family
    difference = row.macs - row.counted
    cells = [
        family.name,
        "x".join(map(str, family.image)),
        f"{row.operators}",
        f"{row.regions} of {family.attentions}",
        f"{row.macs:,}",
        f"{row.counted:,}",
        f"{difference:+,}" if difference else "0",
        f"{sum(count for *_, count in row.unmapped)}",
        "any" if row.batched else "one by one",
    ]
    return "| " + " | ".join(cells)


def page(rows: list[Row]) -> str:
    """The whole page."""
    lines = [
        "# Coverage: models that nobody here wrote",
        "",
        "Generated by `benchmarks/coverage.py`; nothing here is typed by hand.",
        "",
        "Vision models of `transformers`, built from their config classes with seeded random "
        "weights:",
        "small sizes, the family's own structure. Values that start at zero or one (position "
        "tables, tokens,",
        "layer scales, statistics) are made random, so that an operator that was dropped would "
        "show.",
        "",
        "Error: graph against module on two random images, the largest difference over the "
        f"largest value; at most {TOLERANCE:g}.",
        "MACs: multiply-accumulates of one image in the graph, and by `torch.utils.flop_counter` "
        "(half its FLOPs).",
        "Regions: attention regions found, of the attentions that the config implies. "
        "Host: operators without",
        "a rule. Batch: whether the graph runs batches of any length. Trace: processor time of "
        "`trace`, checks included.",
        "",
        "| family | image | operators | regions | MACs | counted by torch | difference | Host "
        "| batch | error | trace |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"{line(row)} | {row.error:.1e} | {row.seconds:.1f} s |" for row in rows]
    lines += ["", "## Why the MACs differ", ""]
    different = [row for row in rows if row.macs != row.counted]
    lines += [f"- {row.family.name}: " + "; ".join(causes(row)) for row in different] or ["None."]
    lines += ["", "## Attention that is no region", ""]
    missing = [row for row in rows if row.regions != row.family.attentions]
    lines += [f"- {row.family.name}: {row.family.reason}" for row in missing] or ["None."]
    lines += ["", "## Operators on the host", ""]
    lines += [
        f"- {row.family.name}: {count} x `{target}`: {reason}"
        for row in rows
        for target, reason, count in row.unmapped
    ] or ["None: every operator of every family has a rule."]
    return "\n".join(lines) + "\n"


def causes(row: Row) -> list[str]:
    """Why torch counts more, or less."""
    found = []
    if row.constant:
        found.append(
            f"{row.constant:,} are products of parameters only, which are done once while tracing"
        )
    if row.unread:
        found.append(f"{row.unread:,} lead to no output that the user gets")
    if row.unexplained:
        found.append(f"{row.unexplained:,} are not explained")
    return found


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    rows = []
    for family in FAMILIES:
        if names and not any(name.lower() in family.name.lower() for name in names):
            continue
        row = measure(family)
        rows.append(row)
        print(f"{line(row)} | {row.error:.1e} | {row.seconds:.1f} s |", flush=True)
        for text in causes(row):
            print(f"    {text}")
        for target, reason, count in row.unmapped:
            print(f"    {count} x {target}: {reason}")
    if not names:
        PAGE.write_text(page(rows))
        print(PAGE)
    bad = [row.family.name for row in rows if row.error > TOLERANCE or row.unexplained]
    if bad:
        raise SystemExit(f"not as it should be: {', '.join(bad)}")


if __name__ == "__main__":
    main(sys.argv[1:])
