"""The model zoo: names and what they are, from one TOML file each in ``configs/``."""

from __future__ import annotations

from pathlib import Path

from .model_file import ZooModel, load_model_file

__all__ = ["ZOO", "ZooModel"]

ZOO: dict[str, ZooModel] = {
    path.stem: load_model_file(path)
    for path in sorted((Path(__file__).parent / "configs").glob("*.toml"))
}
