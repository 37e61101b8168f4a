"""What every operator of a graph asks of an NPU: products of the array, work of the vector unit,
copies of the DMA, or nothing but addresses. What none of them can do stays on the host, with the
reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Literal

from ...models.graph import Graph, Operator
from ...models.grouped_queries import shared_groups
from ..systolic_report import Gemm, products
from .gemm import GemmWork, Place
from .placement import ADDRESSING, MOVES, ROWS, Placement, place
from .target import NpuTarget
from .vector import VectorWork, actions, elementwise, lane_cycles, lane_latency, vector_work

__all__ = ["Job", "Moved", "jobs_of"]

Unit = Literal["array", "vector unit", "DMA", "addresses", "tiles", "host"]


@dataclass(frozen=True)
class Moved:
    """Bytes of one operand: what it is called, and where it comes from or goes to."""

    operand: str
    bytes: int
    place: Place


@dataclass(frozen=True)
class Job:
    """One operator and what it asks for.

    unit: what does it; ``tiles``: the vector unit, on the tiles of ``product`` before they leave.
    gemm, vector: the work; reads, write: operands of all units but the array. actions: operations
    of the vector unit. reason: why it has no cycles of its own, or is on the host. operand: what
    the array's right operand is called.
    """

    op: Operator
    unit: Unit
    gemm: GemmWork | None = None
    vector: VectorWork | None = None
    reads: tuple[Moved, ...] = ()
    write: Moved | None = None
    actions: Counter[str] | None = None
    reason: str = ""
    product: str = ""
    operand: str = "weights"


def jobs_of(graph: Graph, target: NpuTarget) -> tuple[list[Job], Placement]:
    """A job for every operator of the graph in topological order, and where its tensors lie.

    Raises VitruviusError for an operator whose products do not account for its macs.
    """
    gemms: dict[str, Gemm] = {gemm.operator: gemm for gemm in products(graph)[0]}
    host = {op.name: text for op in graph.operators() if (text := _refusal(op, graph, target))}
    placement = place(graph, target, host)
    inside = placement.inside
    found = []
    for op in graph.operators():
        if not prod(op.output.shape):
            job = Job(op, "addresses", reason="none: an expert without tokens")
        elif op.name in host:
            job = Job(op, "host", reason=host[op.name])
        elif op.kind in ("Input", "Constant"):
            job = Job(op, "addresses", reason="none: lies in DRAM until it is read")
        elif op.kind == "Output":
            job = Job(op, "addresses", reason="none: stored by the operator before it")
        elif op.kind in ADDRESSING:
            job = Job(op, "addresses", reason="none: the DMA of the next operator reads through it")
        elif op.kind in ROWS:
            job = _rows(op, graph, target, placement)
        elif op.name in inside:
            job = _in_tiles(op, inside[op.name], target)
        elif op.name in gemms and not _on_lanes(op, gemms[op.name], target):
            job = _array(op, gemms[op.name], graph, target, placement)
        else:
            job = _other(op, gemms.get(op.name), graph, target, placement)
        found.append(job)
    return found, placement


def _refusal(op: Operator, graph: Graph, target: NpuTarget) -> str:
    """Why the NPU does not run the operator; empty where it does."""
    if op.kind == "Host":
        known = {item.name: item.reason for item in graph.unmapped}
        return known.get(op.name, "the operator has no rule in the graph's vocabulary")
    if op.kind in ("Gather", "Scatter"):
        return f"{op.kind}: its addresses are data, which the DMA cannot follow"
    if op.kind == "Resize" and not _nearest(op) and vector_work(op, [()], target) is None:
        mode = op.attributes["mode"]
        return f"Resize: no rule of the vector unit for mode {mode} with antialias"
    free = ADDRESSING | MOVES | ROWS | {"Input", "Constant", "Output"}
    if op.macs or op.kind in free:
        return ""
    if vector_work(op, [graph.operator(name).output.shape for name in op.inputs], target) is None:
        return f"{op.kind}: the vector unit has no rule for it"
    return ""


def _nearest(op: Operator) -> bool:
    return op.kind == "Resize" and str(op.attributes["mode"]).startswith("nearest")


def _on_lanes(op: Operator, gemm: Gemm, target: NpuTarget) -> bool:
    """Whether a depthwise convolution goes to the vector unit."""
    return (
        gemm.count > 1
        and gemm.N == 1
        and op.kind == "Conv2d"
        and (target.vector.depthwise == "vector")
    )


def _array(op: Operator, gemm: Gemm, graph: Graph, target: NpuTarget, placement: Placement) -> Job:
    M, N, K, count = gemm.M, gemm.N, gemm.K, gemm.count
    side_by_side = 1
    if op.kind in ("Conv2d", "ConvTranspose2d") and count > 1:
        # Groups side by side as a block-diagonal operand, as many as the array holds.
        room = min(count, target.array.rows // K, target.array.cols // N)
        side_by_side = max(1, room) if target.array.dataflow != "os" else 1
        N, K, count = N * side_by_side, K * side_by_side, -(-count // side_by_side)
    left = _moved(op.inputs[0], "inputs", graph, placement)
    input_bits = placement.bits[op.inputs[0]]
    share = Fraction(
        min(prod(graph.operator(op.inputs[0]).output.shape), M * K * count), M * K * count
    )
    widths = target.widths
    right_bits, operand = widths.weight, "weights"
    right_place: Place = "dram"
    right_share = Fraction(1, side_by_side)
    groups = 1
    if op.kind == "MatMul":
        M, count = _shared_right(op, graph, M, count)
        right = _moved(op.inputs[1], "weights", graph, placement)
        right_bits, right_place = placement.bits[op.inputs[1]], right.place
        regions = {name for region in graph.regions for name in (region.scores, region.apply)}
        operand = "keys and values" if op.name in regions else "right operands"
    elif widths.weight_group and side_by_side == 1:
        groups = -(-K // widths.weight_group)
        right_share = Fraction(K * right_bits + groups * widths.weight_scale, K * right_bits)
    behind = placement.behind.get(op.name, ())
    final = placement.last(op.name)
    each: Counter[str] = Counter({"requantize": 1})
    if "bias" in op.tensors:
        each["alu"] += 1
    if groups > 1:
        each.update({"multiply": groups - 1, "alu": groups - 1})
    latency = lane_latency(each, target)
    own = Counter({name: number * M * N * count for name, number in each.items()})
    side = {"dram": 0, "chip": 0}
    before = {op.name}
    for name in behind:
        follower = graph.operator(name)
        operations = elementwise(follower, target, behind_product=True) or {}
        each.update(operations)
        latency += lane_latency(operations, target)
        for other in follower.inputs:
            if other not in before:
                # Broadcast operands are small; those of full size are read element by element.
                moved = _moved(other, "side", graph, placement)
                side[moved.place] += -(-8 * moved.bytes // (M * N * count))
        before.add(name)
    work = GemmWork(
        M=M,
        N=N,
        K=K,
        count=count,
        macs=op.macs,
        input_bits=input_bits,
        weight_bits=right_bits,
        output_bits=placement.bits[final],
        inputs=left.place,
        weights=right_place,
        outputs=placement.where.get(final, "dram"),
        input_share=(share.numerator, share.denominator),
        weight_share=(right_share.numerator, right_share.denominator),
        epilogue=lane_cycles(each, target),
        epilogue_latency=latency,
        side_bits=(side["dram"], side["chip"]),
    )
    return Job(op, "array", gemm=work, actions=own, operand=operand)


def _shared_right(op: Operator, graph: Graph, M: int, count: int) -> tuple[int, int]:
    """Rows and number of products where several products read one right operand: grouped queries
    are more rows of it.
    """
    if groups := shared_groups(graph.operator, op.inputs[1]):
        each = op.output.shape[1] // groups
        return M * each, count // each
    lead = op.output.shape[:-2]
    right = graph.operator(op.inputs[1]).output.shape[:-2]
    right = (1,) * (len(lead) - len(right)) + right
    shared = 1
    for whole, own in zip(reversed(lead), reversed(right), strict=True):
        if own != 1:
            break
        shared *= whole
    return (M * shared, count // shared) if count % shared == 0 else (M, count)


def _in_tiles(op: Operator, product: str, target: NpuTarget) -> Job:
    elements = prod(op.output.shape)
    operations = elementwise(op, target, behind_product=True) or {}
    done = Counter({name: count * elements for name, count in operations.items()})
    return Job(
        op,
        "tiles",
        actions=done,
        reason=f"none: in the vector unit, on the tiles of {product}",
        product=product,
    )


def _rows(op: Operator, graph: Graph, target: NpuTarget, placement: Placement) -> Job:
    """What is new, stored behind what is kept; or rows of a table, one for each token."""
    bits = placement.bits[op.name]
    if op.kind == "Append":
        new = _moved(op.inputs[1], "new keys, values and states", graph, placement)
        write = Moved("new keys, values and states", new.bytes, "dram")
        return Job(op, "DMA", reads=(new,), write=write)
    elements = prod(op.output.shape)
    tokens, width = elements // op.output.shape[-1], op.output.shape[-1]
    reads = (
        Moved("weights", target.widths.weight_bytes(tokens, width), "dram"),
        _moved(op.inputs[0], "inputs", graph, placement),
    )
    outputs = Moved("outputs", -(-elements * bits // 8), placement.where.get(op.name, "dram"))
    return Job(op, "DMA", reads=reads, write=outputs)


def _other(
    op: Operator, gemm: Gemm | None, graph: Graph, target: NpuTarget, placement: Placement
) -> Job:
    reads = [_moved(name, "inputs", graph, placement) for name in op.inputs]
    weights = [graph.tensors[key] for role, key in sorted(op.tensors.items())]
    if weights:
        elements = sum(prod(tensor.shape) for tensor in weights)
        bits = target.widths.accumulator if gemm is None else target.widths.weight
        reads.append(Moved("weights", -(-elements * bits // 8), "dram"))
    size = -(-prod(op.output.shape) * placement.bits[op.name] // 8)
    write = Moved("outputs", size, placement.where.get(op.name, "dram"))
    if gemm is not None:
        each = {"multiply": gemm.K, "requantize": 1} | ({"alu": 1} if "bias" in op.tensors else {})
        work: VectorWork | None = VectorWork(1, prod(op.output.shape), each)
    elif op.kind in MOVES and (op.kind != "Resize" or _nearest(op)):
        return Job(op, "DMA", reads=tuple(reads), write=write)
    else:
        shapes = [graph.operator(name).output.shape for name in op.inputs]
        work = vector_work(op, shapes, target)
    assert work is not None
    return Job(
        op,
        "vector unit",
        vector=work,
        reads=tuple(reads),
        write=write,
        actions=actions(work, target),
    )


def _moved(name: str, operand: str, graph: Graph, placement: Placement) -> Moved:
    """The bytes that an operator reads of its operand ``name``, which may be part of a tensor."""
    base = placement.base[name]
    elements = min(prod(graph.operator(name).output.shape), prod(graph.operator(base).output.shape))
    bits = placement.bits[base]
    return Moved(operand, -(-elements * bits // 8), placement.where.get(base, "dram"))
