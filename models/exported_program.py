"""A saved ``ExportedProgram`` (``.pt2``) as a module: read after it was checked, run node by node.

Guards, which PyTorch would compile as Python when a program becomes a module, are never run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.export.pt2_archive._package import load_pt2

from ..errors import VitruviusError
from .exported_archive import check_contents, check_kind
from .rewrite import symbolic
from .user_line import first_line

__all__ = ["ExportedModule", "load_program"]


class ExportedModule(nn.Module):
    """A saved program as a module in inference.

    ``program`` is what was saved; its parameters and buffers carry their names, so weights can be
    loaded into it. ``forward`` takes the program's tensors in order and returns its one output, or
    a tuple of several.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program
        for key, tensor in program.state_dict.items():
            *folders, leaf = key.split(".")
            owner: nn.Module = self
            for folder in folders:
                if folder not in owner._modules:
                    owner.add_module(folder, nn.Module())
                owner = owner.get_submodule(folder)
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(leaf, tensor)
            else:
                owner.register_buffer(leaf, tensor)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The program's outputs; raises what PyTorch raises when the inputs do not fit."""
        program = self.program
        waiting = list(inputs)
        arguments: list[object] = []
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                constant = isinstance(spec.arg, ConstantArgument)
                if not constant and not waiting:
                    raise ValueError(f"expected an input for {spec.arg.name}, got none")
                arguments.append(spec.arg.value if constant else waiting.pop(0))
            else:
                key = str(spec.target)
                held = program.state_dict.get(key)
                arguments.append(program.constants[key] if held is None else held)
        if waiting:
            raise ValueError(f"expected {len(inputs) - len(waiting)} inputs, got {len(inputs)}")
        interpreter = torch.fx.Interpreter(program.graph_module)
        results = interpreter.run(*arguments, enable_io_processing=False)
        kinds = program.graph_signature.output_specs
        user = [
            result
            for spec, result in zip(kinds, results, strict=True)
            if spec.kind.name == "USER_OUTPUT" and isinstance(result, Tensor)
        ]
        return user[0] if len(user) == 1 else tuple(user)


def load_program(path: Path) -> tuple[ExportedModule, tuple[Tensor, ...]]:
    """The program that ``torch.export.save`` wrote to ``path``, and the inputs it was exported
    with.

    Nothing is unpickled but tensors, and nothing of the file is run as Python. The example inputs
    are the saved ones, or zeros of the saved shapes where none were saved.

    Raises ``VitruviusError`` in one sentence: no such file, truncated, another kind of file, an
    archive or program of a PyTorch that this one cannot read (both versions named), pickled
    objects, compiled code, or operators that are not PyTorch's own.
    """
    if not path.is_file():
        raise VitruviusError(f"expected a saved program, found none at {path}")
    check_kind(path)
    try:
        reader = torch._C.PyTorchFileReader(str(path))
    except RuntimeError as error:
        raise VitruviusError(
            f"{path} cannot be read as a .pt2 file: {first_line(error)}"
        ) from error
    model = check_contents(path, reader)
    written = str(model.get("torch_version", "an unnamed version"))
    versions = f"it was written by PyTorch {written}, this is {torch.__version__}"
    try:
        with _quiet():
            # not torch.export.load, which hides why a file could not be read
            program = load_pt2(str(path)).exported_programs["model"]
            # run_decompositions would compile these as Python
            program._guards_code = []
    except Exception as error:
        raise VitruviusError(
            f"{path} cannot be read by this PyTorch ({versions}): {_first_cause(error)}; export "
            "the module again here"
        ) from error
    inputs = _example_inputs(program, path)
    return ExportedModule(program), inputs


def _example_inputs(program: ExportedProgram, path: Path) -> tuple[Tensor, ...]:
    """The saved inputs in the program's order, or zeros of the recorded shapes."""
    if program.example_inputs is not None:
        leaves = torch.utils._pytree.tree_leaves(program.example_inputs)
        saved = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        if saved:
            return saved
    given = set(program.graph_signature.user_inputs)
    values: list[object] = [node.meta["val"] for node in program.graph.nodes if node.name in given]
    zeros = tuple(_zeros(value) for value in values if isinstance(value, Tensor))
    if not zeros:
        raise VitruviusError(f"{path}: the program takes no tensor")
    return zeros


def _zeros(value: Tensor) -> Tensor:
    shape: Sequence[int] = [2 if symbolic(size) else size for size in value.shape]
    return torch.zeros(shape, dtype=value.dtype)


def _first_cause(error: BaseException) -> str:
    """The oldest error of the chain says what was wrong; later ones say that something was."""
    while error.__context__ is not None:
        error = error.__context__
    return first_line(error).partition(". ")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's log lines back: its errors make one sentence."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
