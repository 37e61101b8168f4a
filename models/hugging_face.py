"""A folder of Hugging Face: ``config.json`` and safetensors weights, as a module.

ViT and DeiT become the zoo's own ``VisionTransformer``. Every other architecture is built by the
``transformers`` library where it is installed; without it, it is refused by name. Code that comes
with a folder and pickled weights are never loaded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn

from ..errors import VitruviusError
from .user_line import first_line
from .zoo.config import VisionTransformerConfig
from .zoo.pretrained import load_pretrained
from .zoo.vit import VisionTransformer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["CONFIG", "load_folder", "vision_transformer_config"]

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin*", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_LISTED = 4
_IMAGES = "pixel_values"
_ANY_SIZE = 224

# Which heads and tokens an architecture has, for those that the zoo has too. A DeiT without a
# teacher's head keeps its distillation token, which is then a register.
_ARCHITECTURES: dict[str, dict[str, bool | int]] = {
    "ViTForImageClassification": {"headed": True},
    "ViTModel": {"headed": False},
    "DeiTForImageClassification": {"headed": True, "registers": 1},
    "DeiTForImageClassificationWithTeacher": {"headed": True, "distilled": True},
    "DeiTModel": {"headed": False, "registers": 1},
}
_MODEL_TYPES = ("deit", "vit")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# ViTConfig and DeiTConfig leave fields out of config.json that have these values
_DEFAULTS: dict[str, object] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
_DEFAULT_LABELS = 2


class _Found(TypedDict):
    """What transformers tells of loading: keys, and (key, shape in the file, shape wanted)."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]


def load_folder(folder: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a folder in eval mode, with its weights, and zeros for one image.

    Raises ``VitruviusError`` in one sentence: no or broken ``config.json``, no safetensors weights
    (pickled ones are named), an unknown architecture, weights that do not fit, a model that takes
    more than images.
    """
    config = _read(folder)
    _check_weights(folder)
    sizes = vision_transformer_config(config)
    if sizes is not None:
        module = VisionTransformer(sizes)
        load_pretrained(module, folder)
        return module.eval(), (torch.zeros(1, sizes.channels, *sizes.image_size),)
    return _by_transformers(folder, config)


def vision_transformer_config(config: Mapping[str, object]) -> VisionTransformerConfig | None:
    """The sizes that a ``config.json`` of a ViT or DeiT states; None when the zoo has no such
    model.

    >>> sizes = vision_transformer_config(
    ...     {
    ...         "model_type": "vit",
    ...         "architectures": ["ViTForImageClassification"],
    ...         "hidden_size": 192,
    ...         "num_attention_heads": 3,
    ...         "intermediate_size": 768,
    ...     }
    ... )
    >>> sizes.dim, sizes.hidden, sizes.tokens, sizes.classes
    (192, 768, 197, 2)
    """
    head = _ARCHITECTURES.get(_architecture(config))
    value = {**_DEFAULTS, **config}
    activation = _ACTIVATIONS.get(str(value["hidden_act"]))
    if config.get("model_type") not in _MODEL_TYPES or head is None or activation is None:
        return None
    dim, hidden = value["hidden_size"], value["intermediate_size"]
    if not isinstance(dim, int) or not isinstance(hidden, int) or dim < 1:
        return None
    image = value["image_size"]
    fields = {
        "image_size": tuple(image) if isinstance(image, list) else image,
        "patch_size": value["patch_size"],
        "channels": value["num_channels"],
        "classes": _labels(config) if head["headed"] else 0,
        "dim": dim,
        "depth": value["num_hidden_layers"],
        "heads": value["num_attention_heads"],
        "mlp_ratio": hidden / dim,
        "norm_eps": value["layer_norm_eps"],
        "activation": activation,
        "distilled": bool(head.get("distilled", False)),
        "registers": int(head.get("registers", 0)),
        "qkv_bias": value["qkv_bias"],
    }
    try:
        return VisionTransformerConfig.model_validate(fields)
    except ValueError:
        return None  # patches that are no squares, say: transformers may know them


def _read(folder: Path) -> dict[str, object]:
    path = folder / CONFIG
    if not path.is_file():
        raise VitruviusError(f"expected a {CONFIG} in the folder {folder}, found none")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VitruviusError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise VitruviusError(f"{path} names no model_type, so it is no model's configuration")
    return config


def _check_weights(folder: Path) -> None:
    if any((folder / name).is_file() for name in _WEIGHTS):
        return
    pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickled:
        raise VitruviusError(
            f"{folder} holds its weights in {pickled[0]}, and loading anything but safetensors "
            "could run code: save the model again with save_pretrained, which writes "
            f"{_WEIGHTS[0]}"
        )
    raise VitruviusError(f"expected {_WEIGHTS[0]} or {_WEIGHTS[1]} in the folder {folder}")


def _architecture(config: Mapping[str, object]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _labels(config: Mapping[str, object]) -> int:
    labels, number = config.get("id2label"), config.get("num_labels")
    if isinstance(labels, dict):
        return len(labels)
    return number if isinstance(number, int) else _DEFAULT_LABELS


def _by_transformers(
    folder: Path, config: Mapping[str, object]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    kind, named = str(config["model_type"]), _architecture(config)
    what = f"{folder / CONFIG}: architecture {named or 'unnamed'} (model_type {kind})"
    try:
        import transformers
    except ImportError as error:
        raise VitruviusError(
            f"{what} is not known here, only {', '.join(sorted(_ARCHITECTURES))} are; "
            "pip install transformers widens that"
        ) from error
    try:
        sizes = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (KeyError, ValueError, TypeError, OSError) as error:
        known = kind in transformers.CONFIG_MAPPING
        reason = first_line(error).partition(". ")[0] if known else "that library has no such model"
        raise VitruviusError(
            f"{what} is not known here, nor to transformers {transformers.__version__}: {reason}"
        ) from error
    builder = getattr(transformers, named, None) if named else None
    if builder is None:
        if named:
            raise VitruviusError(
                f"{what} is not known here, nor to transformers {transformers.__version__}"
            )
        builder = cast("type[PreTrainedModel]", transformers.AutoModel)
    elif getattr(builder, "main_input_name", "") != _IMAGES or hasattr(sizes, "text_config"):
        raise VitruviusError(
            f"{what} takes more than images: save its vision tower alone, for example "
            "CLIPVisionModel, with save_pretrained"
        )
    module = _loaded(folder, sizes, builder, what)
    return module, (_image(module, sizes),)


def _loaded(
    folder: Path, sizes: PreTrainedConfig, builder: type[PreTrainedModel], what: str
) -> nn.Module:
    """The module with the folder's weights; raises with every key that does not fit."""
    import transformers

    previous = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: object = builder.from_pretrained(
            folder,
            config=sizes,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever its parts raise
        raise VitruviusError(f"{what} cannot be built: {first_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(previous)
        if bars:
            transformers.logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    module, found = cast("tuple[nn.Module, _Found]", loaded)
    problems = []
    for fault, keys in (
        ("missing", found["missing_keys"]),
        ("unexpected", found["unexpected_keys"]),
    ):
        if keys:
            problems.append(f"{fault} {_listing(sorted(keys))}")
    problems += [
        f"{key} expected shape {list(expected)}, got {list(got)}"
        for key, got, expected in sorted(found["mismatched_keys"])
    ]
    if problems:
        raise VitruviusError(
            f"{folder} does not fit {type(module).__name__}: {'; '.join(problems)}"
        )
    return module.eval()


def _image(module: nn.Module, sizes: PreTrainedConfig) -> Tensor:
    """Zeros in the shape of one image, as the configuration states it."""
    image = getattr(sizes, "image_size", None)
    sides = [image, image] if isinstance(image, int) else image
    channels = getattr(sizes, "num_channels", None)
    if channels is None:
        first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
        channels = first.in_channels if first is not None else 3
    if not isinstance(sides, (list, tuple)) or len(sides) != 2:
        # convolutional families take any size and state none
        sides = [_ANY_SIZE, _ANY_SIZE]
    return torch.zeros(1, channels, *sides)


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
