"""From what the user types as MODEL to a module, its example inputs, and its data."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ..errors import VitruviusError, nearest
from .datasets import Dataset
from .exported_program import load_program
from .hugging_face import CONFIG, load_folder
from .user_line import first_line, user_line
from .zoo import ZOO, ZooModel
from .zoo.config import VisionTransformerConfig
from .zoo.model_file import load_model_file, problems
from .zoo.network_file import (
    NETWORKS,
    ZooNetwork,
    load_network_file,
    network_kind,
    with_image_size,
)
from .zoo.pretrained import load_pretrained

__all__ = [
    "Workload",
    "entry_workload",
    "resized",
    "resolve_model",
    "zoo_entry",
    "zoo_names",
]

_PROGRAM_SUFFIXES = (".pt2", ".pt", ".pth")
_SIZE_NAMES = ("image_size", "img_size", "input_size")
_CHANNEL_NAMES = ("num_channels", "channels", "in_channels", "in_chans")
_LARGE = 100_000_000
_RETURN_EXAMPLE = "return them too: return module, torch.zeros(1, 3, 224, 224)"


@dataclass(frozen=True)
class Workload:
    """A module in eval mode, example inputs for one image each, and its images if it has a set.
    ``task``: the only one that counts, of a module for several; None if all do.
    """

    name: str
    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    dataset: Dataset | None
    task: int | None = None


def zoo_names() -> tuple[str, ...]:
    """The names of the zoo's models, sorted."""
    return tuple(sorted({**ZOO, **NETWORKS}))


def resolve_model(spec: str, *, shapes: bool = False) -> Workload:
    """The workload that ``spec`` names: a zoo name, a model's TOML file, a saved program
    (``.pt2``), a Hugging Face folder, ``file.py:factory`` or ``package.module:factory``.

    A factory takes no arguments and returns a module, or a module and its example inputs (one
    tensor or a sequence of them). Without inputs they are taken from the module's image size and
    channels where it states them. A zoo model comes with its shipped weights. With ``shapes`` a zoo
    model of more than 100 M parameters without shipped weights lies on the meta device: it has
    shapes and no values, and takes no memory (see ``trace_shapes``).

    Raises ``VitruviusError`` in one sentence: unknown names with the nearest ones, a factory that
    is missing, raises or returns something else, with its file and line.
    """
    if (entry := zoo_entry(spec)) is not None:
        return entry_workload(entry, shapes=shapes)
    if spec.endswith(_PROGRAM_SUFFIXES):
        program, inputs = load_program(Path(spec))
        return Workload(Path(spec).stem, program.eval(), inputs, None)
    folder = Path(spec).parent if Path(spec).name == CONFIG else Path(spec)
    if folder.is_dir() and (folder.name != spec or (folder / CONFIG).is_file()):
        module, inputs = load_folder(folder)
        return Workload(folder.resolve().name, module, inputs, None)
    place, colon, factory = spec.rpartition(":")
    if not colon:
        if spec.endswith(".py"):
            raise VitruviusError(f"expected file.py:factory, got '{spec}' without a factory")
        held = f" (the folder of that name holds no {CONFIG})" if spec and folder.is_dir() else ""
        raise VitruviusError(
            f"unknown model '{spec}'{held}, {nearest(spec, zoo_names())}; "
            "or give a model's TOML file, a .pt2 file, a folder with config.json, file.py:factory "
            "or package.module:factory"
        )
    if not place or not factory:
        raise VitruviusError(f"expected file.py:factory or package.module:factory, got '{spec}'")
    source = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    return _from_factory(spec, factory, place, _attribute(source, factory, place))


def zoo_entry(spec: str) -> ZooModel | ZooNetwork | None:
    """The zoo's entry called ``spec``, or the one that a TOML file describes; None for anything
    else.
    """
    if spec in ZOO:
        return ZOO[spec]
    if spec in NETWORKS:
        return NETWORKS[spec]
    if spec.endswith(".toml"):
        path = Path(spec)
        return load_network_file(path) if network_kind(path) else load_model_file(path)
    return None


def resized(entry: ZooModel | ZooNetwork, image_size: int) -> ZooModel | ZooNetwork:
    """The entry for square images of another size.

    Raises ``VitruviusError`` where the sizes do not fit, or weights are for the old ones.
    """
    if isinstance(entry, ZooNetwork):
        return with_image_size(entry, image_size)
    if entry.weights is not None:
        raise VitruviusError(f"{entry.name} has weights for images of its own size")
    try:
        fields = entry.config.model_dump() | {"image_size": image_size}
        config = VisionTransformerConfig.model_validate(fields)
    except ValidationError as error:
        raise VitruviusError(f"{entry.name}: {problems(error)}") from error
    return replace(entry, name=f"{entry.name}_{image_size}", config=config)


def entry_workload(entry: ZooModel | ZooNetwork, *, shapes: bool = False) -> Workload:
    """The workload of a zoo entry; ``shapes`` as for ``resolve_model``."""
    if shapes and entry.config.parameters > _LARGE and entry.weights is None:
        with torch.device("meta"):
            return Workload(entry.name, entry.build().eval(), entry.example_inputs(), None)
    module = entry.build()
    if entry.weights is not None:
        load_pretrained(module, entry.weights)
    dataset = entry.dataset() if entry.dataset is not None else None
    task = entry.task if isinstance(entry, ZooModel) else None
    return Workload(entry.name, module.eval(), entry.example_inputs(), dataset, task)


def _load_file(path: Path) -> ModuleType:
    """Runs a Python file; its folder is importable while it runs."""
    if not path.is_file():
        raise VitruviusError(f"expected a Python file, found none at {path}")
    name = f"vitruvius_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise VitruviusError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # classes of the file find their module by name (dataclasses, pickling, torch.export)
    sys.modules[name] = module
    with _importable(path.resolve().parent), _told(f"{path} cannot be loaded"):
        spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    """Imports a module; the current folder is importable while it runs."""
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise VitruviusError(f"expected a Python module, found none called '{name}'")
        with _told(f"module {name} cannot be loaded"):
            return importlib.import_module(name)


def _attribute(source: ModuleType, factory: str, place: str) -> object:
    if hasattr(source, factory):
        value: object = getattr(source, factory)
        return value
    own = [
        name
        for name, value in vars(source).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == source.__name__
    ]
    raise VitruviusError(f"{place} has no factory '{factory}', {nearest(factory, own)}")


def _from_factory(spec: str, name: str, place: str, factory: object) -> Workload:
    where = _defined(factory, place)
    if isinstance(factory, nn.Module):
        result: object = factory
    elif not callable(factory):
        raise VitruviusError(
            f"{where}: expected {name} to be a function that returns a module, "
            f"got {type(factory).__name__}"
        )
    else:
        _takes_nothing(factory, name, where)
        with _importable(Path.cwd()), _told(f"{where}: {name} fails"):
            result = factory()
    module, inputs = _parted(result, name, where)
    broken = [key for key, tensor in module.named_parameters() if not _finite(tensor)]
    if broken:
        raise VitruviusError(f"{where}: parameter {broken[0]} holds NaN or infinite values")
    module.eval()
    return Workload(name, module, inputs or _derived(module, name, where), None)


def _parted(result: object, name: str, where: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module and its example inputs, empty when none were returned."""
    if isinstance(result, nn.Module):
        return result, ()
    if isinstance(result, (tuple, list)) and len(result) == 2 and isinstance(result[0], nn.Module):
        given = result[1]
        inputs = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if inputs and all(isinstance(tensor, Tensor) for tensor in inputs):
            return result[0], inputs
    raise VitruviusError(
        f"{where}: expected {name} to return a torch.nn.Module or (module, example inputs), "
        f"got {_described(result)}"
    )


def _derived(module: nn.Module, name: str, where: str) -> tuple[Tensor, ...]:
    """Zeros in the shape that the module, or its ``config``, states."""
    holders = [module, getattr(module, "config", None)]
    size = _stated(holders, _SIZE_NAMES)
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, (tuple, list)) or not all(isinstance(side, int) for side in sides):
        raise VitruviusError(
            f"{where}: {name} gives no example inputs and {type(module).__name__} states no "
            f"image size ({', '.join(_SIZE_NAMES)}); {_RETURN_EXAMPLE}"
        )
    if len(sides) == 3:
        return (torch.zeros(1, *sides),)
    channels = _stated(holders, _CHANNEL_NAMES)
    if not isinstance(channels, int):
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
        if not convolutions:
            raise VitruviusError(
                f"{where}: {name} gives no example inputs and {type(module).__name__} states no "
                f"number of channels ({', '.join(_CHANNEL_NAMES)}); {_RETURN_EXAMPLE}"
            )
        channels = convolutions[0].in_channels
    return (torch.zeros(1, channels, *sides),)


def _stated(holders: list[object], names: tuple[str, ...]) -> object:
    for holder in holders:
        for name in names:
            value: object = getattr(holder, name, None)
            if value is not None and not isinstance(value, bool):
                return value
    return None


def _takes_nothing(factory: Callable[..., object], name: str, where: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise VitruviusError(
            f"{where}: expected {name} to take no arguments, it needs {', '.join(needed)}"
        )


def _defined(factory: object, place: str) -> str:
    """Where the factory is written, as "file.py:12"; ``place`` when that is unknown."""
    if not _has_source(factory):
        return place
    try:
        line = inspect.getsourcelines(factory)[1]  # type: ignore[arg-type]
    except OSError:  # frozen into the interpreter
        return place
    return f"{place}:{line}"


def _has_source(factory: object) -> bool:
    return inspect.isfunction(factory) or inspect.isclass(factory)


def _described(value: object) -> str:
    if isinstance(value, (tuple, list)):
        items = ", ".join(type(item).__name__ for item in value) or "nothing"
        return f"{type(value).__name__} of {items}"
    return type(value).__name__


def _finite(tensor: Tensor) -> bool:
    return tensor.is_meta or bool(torch.isfinite(tensor).all())


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` first on the import path."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns any error of the user's code into one sentence with the line it came from."""
    try:
        yield
    except VitruviusError:
        raise
    except (Exception, SystemExit) as error:
        line = user_line(error)
        place = f" ({line})" if line else ""
        raise VitruviusError(f"{what}{place}: {first_line(error)}") from error
