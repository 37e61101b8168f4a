"""Checkpoints that other libraries wrote, loaded into the zoo's Vision Transformer.

Two namings are common: timm's (``blocks.0.attn.qkv.weight``) and that of Hugging Face's
transformers, which has an older form, the one in its files
(``vit.encoder.layer.0.attention.attention.query.weight``), and since its release 5 a newer one
inside (``vit.layers.0.attention.q_proj.weight``). A naming is told by its keys and is nothing but a
map from every tensor of the module to one or three of the file, so that faults are listed in the
names of the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import VitruviusError
from ..weights import load_into, load_weights
from .vit import VisionTransformer

__all__ = ["load_pretrained", "read_checkpoint"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_LISTED = 4
_NARROW = (torch.float16, torch.bfloat16)
_PATCHES = "embeddings.patch_embeddings.projection.weight"
# never read when images are classified: masked patches and the pooler of a bare encoder
_UNUSED = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")


@dataclass(frozen=True)
class _Naming:
    """Rules from a key of the module (a pattern) to keys of the file; keys without a rule are the
    same in both. ``ignored`` keys of the file are not read.
    """

    title: str = ""
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ignored: frozenset[str] = frozenset()

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of the file that make the module's tensor ``name``, to be concatenated."""
        for pattern, keys in self.rules:
            if match := re.fullmatch(pattern, name):
                return tuple(match.expand(key) for key in keys)
        return (name,)


_TIMM = _Naming("timm", ((r"patch_embed\.(\w+)", (r"patch_embed.proj.\1",)),))


def load_pretrained(module: nn.Module, path: Path, *, interpolate: bool = False) -> dict[str, str]:
    """Copies a checkpoint into ``module`` and returns the metadata of its file; the module is
    untouched on error.

    ``path`` is a safetensors file, or a folder with ``model.safetensors`` or its shards. Besides
    the module's own names, a ``VisionTransformer`` takes those of timm and of Hugging Face's ViT
    and DeiT; 16-bit floats are widened. ``interpolate`` resizes position embeddings of another
    image size (bicubic, as both libraries do). A distillation token without a head of its own
    (``DeiTForImageClassification``) goes into a model with one register.

    Raises ``VitruviusError`` naming every missing, unexpected and mis-shaped tensor by its name in
    the file, besides the errors of ``load_weights``.
    """
    if not isinstance(module, VisionTransformer):
        return load_into(module, path)
    tensors, metadata = read_checkpoint(path)
    naming = _detected(tensors)
    tensors = {
        key: tensor.float() if tensor.dtype in _NARROW else tensor
        for key, tensor in tensors.items()
        if key not in naming.ignored
    }
    positions = naming.keys("pos_embed")[0]
    _token_as_register(module, naming, tensors)
    if interpolate and positions in tensors:
        tensors[positions] = _resized(module, tensors[positions], path)
    state, problems = _assembled(module, naming, tensors)
    if problems:
        named = f" (named as {naming.title} does)" if naming.title else ""
        raise VitruviusError(
            f"{path}{named} does not fit {type(module).__name__}: "
            + "; ".join(problems)
            + _hint(module, tensors.get(positions))
        )
    module.load_state_dict(state)
    return metadata


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, or of a folder that holds one or its
    shards.

    Raises ``VitruviusError`` when there is none, a shard is missing, or a file is broken.
    """
    if not path.is_dir():
        return load_weights(path)
    if (path / _SINGLE).is_file():
        return load_weights(path / _SINGLE)
    if not (path / _INDEX).is_file():
        raise VitruviusError(f"expected {_SINGLE} or {_INDEX} in the folder {path}, found neither")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for shard in _shards(path / _INDEX):
        part, found = load_weights(path / shard)
        tensors.update(part)
        metadata.update(found)
    return tensors, metadata


def _shards(index: Path) -> list[str]:
    """File names in an index of shards; each must lie in the folder itself."""
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        names = sorted({str(name) for name in record["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VitruviusError(f"{index} is not an index of shards: {error}") from error
    if outside := [name for name in names if Path(name).name != name]:
        raise VitruviusError(f"{index}: expected files in the same folder, got {outside[0]}")
    return names


def _detected(tensors: dict[str, Tensor]) -> _Naming:
    """The naming of a checkpoint by its keys: the module's own when it is no other."""
    if "patch_embed.proj.weight" in tensors:
        return _TIMM
    for key in tensors:
        if key.endswith(_PATCHES):
            return _hugging_face(key.removesuffix(_PATCHES), tensors)
    return _Naming()


def _hugging_face(prefix: str, tensors: dict[str, Tensor]) -> _Naming:
    """Hugging Face's naming behind ``prefix`` ("vit.", "deit." or nothing), older or newer."""
    newer = any(key.startswith(f"{prefix}layers.") for key in tensors)
    head = "cls_classifier" if "cls_classifier.weight" in tensors else "classifier"
    layer = rf"{prefix}{'layers' if newer else 'encoder.layer'}.\1."
    block = r"blocks\.(\d+)\."
    if newer:
        projections = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
        inside = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    else:
        projections = (
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        )
        inside = {
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        }
    inside |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    embeddings = f"{prefix}embeddings."
    return _Naming(
        "Hugging Face",
        (
            ("cls_token", (f"{embeddings}cls_token",)),
            ("dist_token|reg_token", (f"{embeddings}distillation_token",)),
            ("pos_embed", (f"{embeddings}position_embeddings",)),
            (r"patch_embed\.(\w+)", (rf"{embeddings}patch_embeddings.projection.\1",)),
            (rf"{block}attn\.qkv\.(\w+)", tuple(rf"{layer}{name}.\2" for name in projections)),
            *(
                (rf"{block}{re.escape(ours)}\.(\w+)", (rf"{layer}{theirs}.\2",))
                for ours, theirs in inside.items()
            ),
            (r"norm\.(\w+)", (rf"{prefix}layernorm.\1",)),
            (r"head\.(\w+)", (rf"{head}.\1",)),
            (r"head_dist\.(\w+)", (r"distillation_classifier.\1",)),
        ),
        frozenset(prefix + key for key in _UNUSED),
    )


def _assembled(
    module: VisionTransformer, naming: _Naming, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The module's state dict out of the file's tensors, and everything that does not fit."""
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    faults: list[str] = []
    used: set[str] = set()
    for name, wanted in module.state_dict().items():
        keys = naming.keys(name)
        used.update(keys)
        missing += [key for key in keys if key not in tensors]
        shape = (wanted.shape[0] // len(keys), *wanted.shape[1:])
        parts = [tensors[key] for key in keys if key in tensors]
        for key in keys:
            if key in tensors and tensors[key].shape != shape:
                faults.append(f"{key} expected shape {list(shape)}, got {list(tensors[key].shape)}")
            elif key in tensors and tensors[key].dtype != wanted.dtype:
                expected, got = (
                    str(dtype).removeprefix("torch.")
                    for dtype in (wanted.dtype, tensors[key].dtype)
                )
                faults.append(f"{key} expected {expected}, got {got}")
        if len(parts) == len(keys) and not faults:
            state[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    problems = [f"missing {_listing(sorted(missing))}"] if missing else []
    if unexpected := sorted(tensors.keys() - used):
        problems.append(f"unexpected {_listing(unexpected)}")
    return state, problems + faults


def _token_as_register(
    module: VisionTransformer, naming: _Naming, tensors: dict[str, Tensor]
) -> None:
    """Turns a distillation token that no head reads, with its position, into the register of a
    model that has one: the tokens are then the same.
    """
    token, positions = naming.keys("dist_token")[0], naming.keys("pos_embed")[0]
    if module.config.registers != 1 or module.config.distilled:
        return
    if token not in tensors or positions not in tensors or tensors[positions].dim() != 3:
        return
    placed = tensors[positions]
    register = tensors.pop(token) + placed[:, 1:2]
    tensors[naming.keys("reg_token")[0]] = register
    tensors[positions] = torch.cat([placed[:, :1], placed[:, 2:]], dim=1)


def _resized(module: VisionTransformer, positions: Tensor, path: Path) -> Tensor:
    """Position embeddings [1, prefix + patches, dim] for the module's grid of patches."""
    config = module.config
    prefix = config.prefix - config.registers
    rows, columns = config.grid
    patches = positions.shape[1] - prefix
    if patches == rows * columns:
        return positions
    side = round(max(patches, 0) ** 0.5)
    if side * side != patches or side == 0:
        raise VitruviusError(
            f"{path}: {positions.shape[1]} positions are not {prefix} and a square of patches, "
            "so they cannot be resized"
        )
    square = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(square, (rows, columns), mode="bicubic", align_corners=False)
    flat = resized.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    return torch.cat([positions[:, :prefix], flat], dim=1)


def _hint(module: VisionTransformer, positions: Tensor | None) -> str:
    """What to do about positions of another image size."""
    wanted = module.pos_embed.shape
    if positions is None or positions.dim() != 3 or positions.shape[1] == wanted[1]:
        return ""
    return (
        f"; the checkpoint has {positions.shape[1]} positions and the model {wanted[1]}: it is for "
        "another image size or patch size (load_pretrained resizes them with interpolate=True)"
    )


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
