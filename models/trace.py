"""From a module to its graph: export with torch, raise by rules, bring attention to one form,
compare.

``torch.export`` is the only front door, so every module that it takes is welcome.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from ..errors import VitruviusError
from . import rules as _rules  # registers the rewrite rules
from .exported_program import ExportedModule
from .graph import Graph, Unmapped, check, execute_all
from .passes import raise_graph
from .raising import RANDOM, Raiser
from .rewrite import SEVERAL_AXES, symbolic
from .user_line import first_line, user_line

__all__ = ["TraceError", "UnmappedError", "trace", "trace_program", "trace_shapes"]

_RULES_LOADED = _rules.__all__
_TOLERANCE = 1e-4


class TraceError(VitruviusError):
    """The module does not run on its example inputs, or does not export."""


class UnmappedError(VitruviusError):
    """Operators without a rewrite rule; ``operators`` lists them all."""

    def __init__(self, name: str, operators: Sequence[Unmapped]) -> None:
        self.operators = tuple(operators)
        lines = [
            f"  {item.target} at {item.path or 'the root module'} "
            f"({item.source or 'unknown line'}): {item.reason}"
            for item in self.operators
        ]
        count = f"{len(lines)} operator has" if len(lines) == 1 else f"{len(lines)} operators have"
        super().__init__("\n".join([f"{name}: {count} no rewrite rule:", *lines]))


def trace(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    name: str,
    unmapped: Literal["error", "host"] = "error",
) -> Graph:
    """The graph of ``module`` in inference, for inputs of the shape of ``inputs``.

    The first axis of every input is the batch. Where the module allows it, the graph runs batches
    of any length, else it is not ``batched`` and a batch is run image by image; shapes and counts
    are those of one image. Every tensor in what the module returns, dataclasses and dictionaries
    included, is an output, in order; None and numbers are not. The graph is checked against its
    invariants and, on random inputs, against the module itself, which keeps its buffers and its
    mode. ``unmapped="host"`` keeps operators without a rule as Host.

    Raises ``TraceError`` when the module fails on the inputs or does not export, with the error's
    first line and the user's source line, and ``UnmappedError`` listing every operator without a
    rule.
    """
    if not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs):
        raise TraceError(
            f"{name}: expected at least one example input, all of them tensors, got {inputs!r}"
        )
    if isinstance(module, ExportedModule):
        return trace_program(module, inputs, name=name, unmapped=unmapped)
    _refuse_element_types(module, inputs, name)
    modes = {part: part.training for part in module.modules()}
    buffers = {key: buffer.clone() for key, buffer in module.named_buffers()}
    module.eval()
    try:
        problem: TraceError | None = None
        for example, dynamic in _attempts(inputs):
            try:
                program = _exported(module, example, name, dynamic=dynamic)
            except TraceError as error:
                if problem is None:
                    _run(module, inputs, name)
                problem = error
                continue
            if not _returns_tensors(program):
                _run(module, inputs, name)
            if dynamic and not _any_batch(program):
                continue
            graph = _raised(program, name)
            if dynamic and any(SEVERAL_AXES in item.reason for item in graph.unmapped):
                continue  # one image at a time may still have a rule
            if graph.unmapped and unmapped == "error":
                raise UnmappedError(name, graph.unmapped)
            check(graph)
            if _agrees(graph, module, example):
                return graph
            problem = TraceError(
                f"{name}: the traced graph and the module differ on the same random input; "
                f"is the module's output random?{_drawn(graph)}"
            )
        raise (
            problem
            if problem is not None
            else TraceError(f"{name}: the module could not be traced")
        )
    finally:
        for part, mode in modes.items():
            part.training = mode
        for key, buffer in module.named_buffers():
            if key in buffers and not torch.equal(buffer, buffers[key]):
                buffer.copy_(buffers[key])


def trace_program(
    module: ExportedModule,
    inputs: Sequence[Tensor],
    *,
    name: str,
    unmapped: Literal["error", "host"] = "error",
) -> Graph:
    """The graph of a program that was exported before, checked like that of ``trace``.

    It runs batches of the lengths that the program was exported for. Raises like ``trace``.
    """
    _refuse_element_types(module, inputs, name)
    example = _examples(inputs, 1)
    _run(module, example, name)
    program = module.program
    if any(_mutates(node.target) for node in program.graph.nodes):
        with _quiet():
            program = program.run_decompositions({})
    graph = _raised(program, name)
    if graph.unmapped and unmapped == "error":
        raise UnmappedError(name, graph.unmapped)
    check(graph)
    if not _agrees(graph, module, example):
        raise VitruviusError(
            f"{name}: the traced graph and the saved program differ on the same random input; "
            "is the program's output random, or was it exported in training mode?"
        )
    return graph


def trace_shapes(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    name: str,
    unmapped: Literal["error", "host"] = "error",
) -> Graph:
    """The graph of a module on the meta device, for models whose weights would not fit: shapes and
    counts as ``trace`` finds them, tensors without values, one image at a time.

    The graph is checked against its invariants; it cannot be compared with the module or executed.
    What only values tell (a factor of one, a mask that keeps everything) is not recognised, unless
    the exporter knows it. Raises like ``trace``.
    """
    if not inputs or not all(item.is_meta for item in inputs):
        raise TraceError(f"{name}: expected example inputs on the meta device, got {inputs!r}")
    if real := [key for key, held in module.named_parameters() if not held.is_meta]:
        raise TraceError(f"{name}: expected parameters on the meta device, {real[0]} has values")
    module.eval()
    with torch.device("meta"):
        program = _exported(module, tuple(inputs), name, dynamic=False)
        graph = _raised(program, name)
    if graph.unmapped and unmapped == "error":
        raise UnmappedError(name, graph.unmapped)
    check(graph)
    return graph


def _refuse_element_types(module: nn.Module, inputs: Sequence[Tensor], name: str) -> None:
    """Half precision and meta tensors have no values that could be compared."""
    named = [*module.named_parameters(), *module.named_buffers()]
    named += [(f"input {place}", tensor) for place, tensor in enumerate(inputs)]
    for key, tensor in named:
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise TraceError(f"{name}: {key} expected values, got a meta tensor")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TraceError(f"{name}: {key} expected float32, got {kind}; call module.float()")


def _batched(inputs: Sequence[Tensor]) -> bool:
    """Whether the inputs look like one batch: each has a first axis, all of the same length."""
    return (
        all(tensor.dim() > 1 for tensor in inputs)
        and len({tensor.shape[0] for tensor in inputs}) == 1
    )


def _attempts(inputs: Sequence[Tensor]) -> list[tuple[tuple[Tensor, ...], bool]]:
    """Example inputs, and whether their batch may be of any length: two images, then one, then all
    that were given.
    """
    given = _examples(inputs, 1)
    if not _batched(inputs):
        return [(given, False)]
    attempts = [(_examples(inputs, 2), True), (tuple(tensor[:1] for tensor in given), False)]
    return attempts if len(given[0]) == 1 else [*attempts, (given, False)]


def _examples(inputs: Sequence[Tensor], copies: int) -> tuple[Tensor, ...]:
    """Inputs like the given ones, floats replaced by seeded values in 0 to 1, repeated along the
    batch.
    """
    generator = torch.Generator().manual_seed(0)
    examples = []
    for tensor in inputs:
        repeated = torch.cat([tensor.detach()] * copies) if copies > 1 else tensor.detach()
        if repeated.is_floating_point():
            repeated = torch.rand(repeated.shape, generator=generator).to(repeated.dtype)
        examples.append(repeated)
    return tuple(examples)


def _run(module: nn.Module, inputs: Sequence[Tensor], name: str) -> None:
    """One forward pass, so that a module that is simply broken is told apart from one that does not
    export.
    """
    try:
        with torch.no_grad():
            returned = module(*(tensor.clone() for tensor in inputs))
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
        raise TraceError(
            f"{name}: the module fails on its example inputs {shapes}: "
            f"{first_line(error)}{_meaning(error)}{_place(error)}"
        ) from error
    if not any(isinstance(leaf, Tensor) for leaf in _leaves(returned)):
        raise TraceError(
            f"{name}: expected at least one tensor in what the module returns, "
            f"got {type(returned).__name__}"
        )


def _exported(
    module: nn.Module, inputs: tuple[Tensor, ...], name: str, *, dynamic: bool
) -> ExportedProgram:
    """The ATen graph before decomposition, without in-place operators."""
    shapes = tuple({0: Dim.AUTO} for _ in inputs) if dynamic else None
    try:
        with _quiet(), torch.no_grad():
            program = export(module, inputs, dynamic_shapes=_by_parameter(module, shapes))
            if any(_mutates(node.target) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except Exception as error:
        raise TraceError(
            f"{name}: the module does not export: {first_line(error)}{_place(error)}"
        ) from error
    return program


def _returns_tensors(program: ExportedProgram) -> bool:
    """Whether any of the outputs is a tensor."""
    wanted = program.graph_signature.user_outputs
    nodes = [node for node in program.graph.nodes if node.name in wanted]
    return any(isinstance(node.meta.get("val"), Tensor) for node in nodes)


def _any_batch(program: ExportedProgram) -> bool:
    """Whether the exporter kept the batch symbolic: some modules pin it, ``len(x)`` for example."""
    given = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.name in given]
    return all(symbolic(value.shape[0]) for value in values if isinstance(value, Tensor))


def _by_parameter(
    module: nn.Module, shapes: tuple[dict[int, object], ...] | None
) -> tuple[object, ...] | None:
    """Dynamic shapes as ``export`` wants them: those of ``*inputs`` are nested once more."""
    if shapes is None:
        return None
    parameters = inspect.signature(module.forward).parameters.values()
    for place, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return (*shapes[:place], shapes[place:]) if place < len(shapes) else shapes
    return shapes


def _raised(program: ExportedProgram, name: str) -> Graph:
    raiser = Raiser(program)
    try:
        raiser.run()
    except VitruviusError as error:
        raise TraceError(f"{name}: {error}") from error
    graph = Graph(
        name,
        raiser.operators.values(),
        raiser.tensors,
        unmapped=raiser.unmapped,
        batched=_any_batch(program),
    )
    return raise_graph(graph)


def _agrees(graph: Graph, module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether graph and module give the same floats, up to rounding, relative to the largest."""
    with torch.no_grad():
        returned = module(*(tensor.clone() for tensor in inputs))
        expected = [leaf for leaf in _leaves(returned) if isinstance(leaf, Tensor)]
    try:
        got = execute_all(graph, *inputs)
    except VitruviusError:
        return False
    if len(got) != len(expected):
        return False
    for ours, theirs in zip(got, expected, strict=True):
        if ours.shape != theirs.shape:
            return False
        ours, theirs = ours.double().nan_to_num(), theirs.double().nan_to_num()
        bound = _TOLERANCE * max(1.0, float(theirs.abs().max())) if theirs.numel() else 0.0
        if theirs.numel() and float((ours - theirs).abs().max()) > bound:
            return False
    return True


def _drawn(graph: Graph) -> str:
    """Where random numbers are drawn, for the end of a sentence."""
    random = [item for item in graph.unmapped if item.reason == RANDOM]
    return "".join(f" {item.target} at {item.source or item.name} draws" for item in random[:1])


def _leaves(value: object) -> list[object]:
    leaves: list[object] = torch.utils._pytree.tree_leaves(value)
    return leaves


def _mutates(target: object) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's own log lines and warnings back: its errors make one sentence."""
    logger = logging.getLogger("torch")
    level = logger.level
    fast_path = torch.backends.mha.get_fastpath_enabled()
    logger.setLevel(logging.CRITICAL)
    # the fused inference kernel of nn.TransformerEncoderLayer has no parts to map
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _meaning(error: BaseException) -> str:
    """What torch's words mean where they do not say it."""
    if "selected index k out of range" in str(error):
        return ": topk of more values than the axis has, of a gate of more than there are experts"
    return ""


def _place(error: BaseException) -> str:
    line = user_line(error)
    return f" ({line})" if line else ""
