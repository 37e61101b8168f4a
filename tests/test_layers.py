"""A file imports only from its own layer or from below, and its siblings only relatively."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "hwgen", "sim", "fpga_targets", "optical", "reports", "cli")
# The longest matching prefix counts. "errors" is below everything; device data is below hwgen,
# while the flows of the same folder are above it.
LAYER = {
    "errors": 0,
    "": 0,  # the package's own docstring and version
    "models": 1,
    "fpga_targets.device": 1,
    "fpga_targets.energy": 1,
    "hwgen": 2,
    "fpga_targets": 3,
    "sim": 4,
    "optical": 4,
    "reports": 5,
    "cli": 6,
    "__main__": 7,
}


def layer_of(module: str) -> int:
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
    return next(LAYER[prefix] for prefix in prefixes if prefix in LAYER)


def imported(module: str, is_package: bool, node: ast.AST) -> list[str]:
    """Modules of this package that an import statement names, relative to the root."""
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return []
    package = module.split(".") if is_package else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    if node.module:
        return [".".join([*base, node.module])]
    return [".".join([*base, alias.name]) for alias in node.names]


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            absolute = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            absolute = [node.module]
        else:
            absolute = []
        for name in absolute:
            if name.split(".")[0] in {*FOLDERS, "vitruvius"}:
                found.append(f"{module} imports {name} absolutely")
        for name in imported(module, is_package, node):
            top = name.split(".")[0]
            if module.startswith("models") and top in FOLDERS and top != "models":
                found.append(f"{module} imports {name}; models imports no other folder")
            elif layer_of(name) > layer_of(module):
                found.append(f"{module} imports {name}, which is in a layer above")
    return found


def product_files() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(p for d in FOLDERS for p in (ROOT / d).rglob("*.py"))])


@pytest.mark.parametrize("path", product_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_from_below(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(module, path.read_text(encoding="utf-8"), is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.graph", "from ..hwgen.core.machine import Machine"),
        ("models.graph", "from ..fpga_targets.device import Device"),
        ("models.rules.linear", "from ...sim import cycle"),
        ("hwgen.verilog", "from ..fpga_targets.synthesis import synthesize"),
        ("hwgen.core.machine", "from ... import reports"),
        ("sim.cycle", "def late():\n    from ..cli.main import main"),
        ("sim.cycle", "import models.graph"),
        ("sim.cycle", "from vitruvius.models.graph import Graph"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hwgen.verilog", "from ..fpga_targets.device import Device"),
        ("hwgen.units.gelu", "from ...models.integer import gelu"),
        ("fpga_targets.synthesis", "from ..hwgen.core.machine import Machine"),
        ("sim.cycle", "from .. import errors"),
        ("models.graph", "from ..errors import VitruviusError\nimport torch"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
