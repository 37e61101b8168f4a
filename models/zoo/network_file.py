"""Networks of other kinds than the zoo's Vision Transformer: their TOML files, which say their
``kind``.

Nothing here imports torch before a network is built.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import VitruviusError, nearest
from .convshare_config import ConvShareConfig
from .encoder_config import ConvEncoderConfig
from .language_config import LanguageConfig, ScanConfig
from .model_file import DATASETS, problems
from .mpcvit_config import MpcVitConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..datasets import Dataset

__all__ = [
    "NETWORKS",
    "NetworkConfig",
    "ZooNetwork",
    "load_network_file",
    "network_kind",
    "network_text",
    "with_image_size",
]

NetworkConfig: TypeAlias = (
    "ConvEncoderConfig | ConvShareConfig | LanguageConfig | MpcVitConfig | ScanConfig"
)
_KINDS: dict[
    str,
    type[ConvEncoderConfig]
    | type[ConvShareConfig]
    | type[LanguageConfig]
    | type[MpcVitConfig]
    | type[ScanConfig],
] = {
    "conv_encoder": ConvEncoderConfig,
    "convshare": ConvShareConfig,
    "language": LanguageConfig,
    "mpcvit": MpcVitConfig,
    "scan": ScanConfig,
}
_SEED = 0


class _NetworkFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    family: str
    summary: str = ""
    source: str = ""
    weights: str | None = None
    dataset: Literal["digits", "mnistm"] | None = None
    model: ConvEncoderConfig | ConvShareConfig | LanguageConfig | MpcVitConfig | ScanConfig


@dataclass(frozen=True)
class ZooNetwork:
    """One network that a TOML file describes.

    ``weights`` is its safetensors file or None; ``dataset`` makes its images, if it has any.
    """

    name: str
    kind: str
    family: str
    summary: str
    source: str
    config: NetworkConfig
    weights: Path | None = None
    dataset: Callable[[], Dataset] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what the network reads, with its batch axis."""
        return self.config.input_shape

    def build(self) -> nn.Module:
        """The module with random weights, the same every time; torch's own generator stays as it
        is.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return _module(self.config)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Zeros of the right shape and element type."""
        import torch

        whole = isinstance(self.config, LanguageConfig)
        return (torch.zeros(self.input_shape, dtype=torch.int64 if whole else torch.float32),)


def _module(config: NetworkConfig) -> nn.Module:
    if isinstance(config, ConvEncoderConfig):
        from .conv_encoder import ConvEncoder

        return ConvEncoder(config)
    if isinstance(config, ConvShareConfig):
        from .convshare import ConvShareVit

        return ConvShareVit(config)
    if isinstance(config, LanguageConfig):
        from .language import HybridLanguageModel

        return HybridLanguageModel(config)
    if isinstance(config, MpcVitConfig):
        from .mpcvit import MpcVit

        return MpcVit(config)
    from .scan import ScanModel

    return ScanModel(config)


def network_kind(path: Path) -> str:
    """What the TOML file at ``path`` calls its kind; empty when it says none or is no TOML."""
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8")).get("kind", "")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    return str(kind)


def load_network_file(path: Path) -> ZooNetwork:
    """The network that the TOML file at ``path`` describes; it is called like the file.

    Raises ``VitruviusError`` naming every field that is wrong, missing or unknown.
    """
    fields = tomllib.loads(path.read_text(encoding="utf-8"))
    kind = str(fields.get("kind", ""))
    if kind not in _KINDS:
        raise VitruviusError(f"model file {path}: kind '{kind}': {nearest(kind, _KINDS)}")
    model = fields.get("model", {})
    try:
        fields["model"] = _KINDS[kind].model_validate(model)
        file = _NetworkFile.model_validate({"family": kind, **fields})
    except ValidationError as error:
        inside = error.title != "_NetworkFile"
        raise VitruviusError(
            f"model file {path}: {problems(error, 'model' if inside else '')}"
        ) from error
    return ZooNetwork(
        name=path.stem,
        kind=kind,
        family=file.family,
        summary=file.summary,
        source=file.source,
        config=file.model,
        weights=None if file.weights is None else path.parent / file.weights,
        dataset=None if file.dataset is None else DATASETS[file.dataset],
    )


def network_text(config: MpcVitConfig, *, summary: str, source: str) -> str:
    """The TOML text of a network, which ``load_network_file`` reads again; fields at their default
    are left out.
    """

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return ["all" if item is None else plain(item) for item in value]
        return value

    given = config.model_dump()
    defaults = type(config)().model_dump()
    fields = {name: plain(value) for name, value in given.items() if value != defaults[name]}
    head = {"kind": "mpcvit", "summary": summary, "source": source}
    # strings, numbers, booleans and lists are written in TOML as in JSON
    lines = [f"{name} = {json.dumps(value)}" for name, value in head.items()]
    lines += ["", "[model]"]
    return "\n".join(lines + [f"{k} = {json.dumps(v)}" for k, v in fields.items()]) + "\n"


def with_image_size(network: ZooNetwork, size: int) -> ZooNetwork:
    """The network for square images of ``size``; raises ``VitruviusError`` when it takes none."""
    if isinstance(network.config, (LanguageConfig, ScanConfig)):
        raise VitruviusError(f"{network.name} takes no images, so no image size")
    if network.weights is not None:
        raise VitruviusError(f"{network.name} has weights for images of its own size")
    fields = network.config.model_dump() | {"image_size": size}
    try:
        config = type(network.config).model_validate(fields)
    except ValidationError as error:
        raise VitruviusError(f"{network.name}: {problems(error, '')}") from error
    return replace(network, name=f"{network.name}_{size}", config=config)


NETWORKS: dict[str, ZooNetwork] = {
    path.stem: load_network_file(path)
    for path in sorted((Path(__file__).parent / "networks").glob("*.toml"))
}
