"""Every example in a product docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "hwgen", "sim", "fpga_targets", "optical", "reports", "cli")


def modules_with_examples() -> list[str]:
    files = [*ROOT.glob("*.py"), *(p for d in FOLDERS for p in (ROOT / d).rglob("*.py"))]
    return sorted(
        ".".join(["vitruvius", *path.relative_to(ROOT).with_suffix("").parts])
        for path in files
        if ">>> " in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0, f"{name} has '>>>' outside a docstring"
    assert result.failed == 0
