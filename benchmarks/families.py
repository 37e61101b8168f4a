"""Vision models that nobody here wrote: the families of transformers, built from their config
classes with seeded random weights. Shared by the coverage page and the tests.

The sizes are small but the structure is the family's own; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "build", "real_deit"]


@dataclass(frozen=True)
class Family:
    """One family: how to build it, its image (height, width), and what a reader would count in it.

    ``attentions`` is the number of attentions by the config: one for each layer that has one.
    ``regions`` is how many of them are of the form that a region has, all unless given, and
    ``reason`` says why the others are not.
    """

    name: str
    make: Callable[[], nn.Module]
    image: tuple[int, int]
    attentions: int
    channels: int = 3
    regions: int | None = None
    reason: str = ""

    @property
    def expected_regions(self) -> int:
        """The attention regions that the graph must have."""
        return self.attentions if self.regions is None else self.regions


class Interpolated(nn.Module):
    """A model called with ``interpolate_pos_encoding=True``: images of another size than its
    config's.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> object:
        return self.model(pixel_values, interpolate_pos_encoding=True)


def build(family: Family) -> tuple[nn.Module, Tensor]:
    """The module in inference and one seeded image [1, C, H, W]."""
    torch.manual_seed(7)
    module = family.make().eval()
    _awaken(module)
    image = torch.rand(1, family.channels, *family.image)
    return module, image


def real_deit(size: str) -> nn.Module:
    """DeiT at its published size: ``size`` is "tiny", "small" or "base"; random weights."""
    from transformers import DeiTConfig, DeiTForImageClassification

    dim, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[size]
    torch.manual_seed(7)
    return DeiTForImageClassification(
        DeiTConfig(
            hidden_size=dim, num_attention_heads=heads, intermediate_size=4 * dim, num_labels=1000
        )
    ).eval()


def _awaken(module: nn.Module) -> None:
    """Values for what starts at zero or one, so that a dropped operator shows: position tables,
    tokens, layer scales, biases, and the statistics of batch normalisation.
    """
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() and float(parameter.min()) == float(parameter.max()):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)


_SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
_VIT = {**_SMALL, "intermediate_size": 96, "image_size": 32, "patch_size": 8, "num_labels": 10}


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_VIT))


def _vit_eager() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_VIT, attn_implementation="eager"))


def _vit_interpolated() -> nn.Module:
    return Interpolated(_vit())


def _deit() -> nn.Module:
    from transformers import DeiTConfig, DeiTForImageClassification

    return DeiTForImageClassification(DeiTConfig(**_VIT))


def _deit_distilled() -> nn.Module:
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    return DeiTForImageClassificationWithTeacher(DeiTConfig(**_VIT))


def _beit() -> nn.Module:
    from transformers import BeitConfig, BeitForImageClassification

    return BeitForImageClassification(
        BeitConfig(**_VIT, use_relative_position_bias=True, vocab_size=16)
    )


def _data2vec() -> nn.Module:
    from transformers import Data2VecVisionConfig, Data2VecVisionForImageClassification

    return Data2VecVisionForImageClassification(
        Data2VecVisionConfig(**_VIT, use_shared_relative_position_bias=True)
    )


def _dinov2() -> nn.Module:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    return Dinov2ForImageClassification(
        Dinov2Config(**_SMALL, mlp_ratio=2, image_size=32, patch_size=8, num_labels=10)
    )


def _dinov2_swiglu() -> nn.Module:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    return Dinov2ForImageClassification(
        Dinov2Config(
            **_SMALL, mlp_ratio=2, image_size=32, patch_size=8, num_labels=10, use_swiglu_ffn=True
        )
    )


def _dinov2_interpolated() -> nn.Module:
    """Positions are always interpolated when the image is not the config's."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**_SMALL, mlp_ratio=2, image_size=32, patch_size=8))


def _dinov2_registers() -> nn.Module:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    return Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(
            **_SMALL,
            mlp_ratio=2,
            image_size=32,
            patch_size=8,
            num_labels=10,
            num_register_tokens=4,
        )
    )


def _dinov3() -> nn.Module:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(
        DINOv3ViTConfig(
            **_SMALL, intermediate_size=96, image_size=32, patch_size=8, num_register_tokens=4
        )
    )


_SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 10,
}


def _swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return SwinForImageClassification(SwinConfig(**_SWIN))


def _swinv2() -> nn.Module:
    from transformers import Swinv2Config, Swinv2ForImageClassification

    return Swinv2ForImageClassification(Swinv2Config(**_SWIN))


def _mobilevit() -> nn.Module:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    return MobileViTForImageClassification(
        MobileViTConfig(
            image_size=64,
            hidden_sizes=[24, 32, 40],
            neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 48],
            num_attention_heads=4,
            num_labels=10,
        )
    )


def _mobilevitv2() -> nn.Module:
    from transformers import MobileViTV2Config, MobileViTV2ForImageClassification

    return MobileViTV2ForImageClassification(
        MobileViTV2Config(
            image_size=64,
            width_multiplier=0.5,
            base_attn_unit_dims=[32, 48, 64],
            n_attn_blocks=[1, 1, 1],
            num_labels=10,
        )
    )


def _pvt() -> nn.Module:
    from transformers import PvtConfig, PvtForImageClassification

    return PvtForImageClassification(
        PvtConfig(
            image_size=64,
            hidden_sizes=[16, 32, 40, 48],
            depths=[1, 1, 1, 2],
            num_attention_heads=[1, 2, 5, 6],
            mlp_ratios=[2, 2, 2, 2],
            num_labels=10,
        )
    )


def _pvt_v2() -> nn.Module:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    return PvtV2ForImageClassification(
        PvtV2Config(
            image_size=64,
            hidden_sizes=[16, 32, 40, 48],
            depths=[1, 1, 1, 2],
            num_attention_heads=[1, 2, 5, 6],
            mlp_ratios=[2, 2, 2, 2],
            num_labels=10,
        )
    )


def _pvt_v2_linear() -> nn.Module:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    return PvtV2ForImageClassification(
        PvtV2Config(
            image_size=64,
            hidden_sizes=[16, 32, 40, 48],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 5, 6],
            mlp_ratios=[2, 2, 2, 2],
            num_labels=10,
            linear_attention=True,
        )
    )


def _segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(
            hidden_sizes=[16, 32, 40, 48],
            depths=[1, 1, 1, 2],
            num_attention_heads=[1, 2, 5, 6],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=32,
            num_labels=10,
        )
    )


def _levit() -> nn.Module:
    from transformers import LevitConfig, LevitForImageClassification

    return LevitForImageClassification(
        LevitConfig(
            image_size=64,
            hidden_sizes=[32, 48, 64],
            num_attention_heads=[2, 3, 4],
            depths=[1, 2, 1],
            key_dim=[8, 8, 8],
            num_labels=10,
        )
    )


def _swiftformer() -> nn.Module:
    from transformers import SwiftFormerConfig, SwiftFormerForImageClassification

    return SwiftFormerForImageClassification(
        SwiftFormerConfig(
            image_size=64, depths=[2, 1, 2, 1], embed_dims=[16, 24, 32, 48], num_labels=10
        )
    )


def _poolformer() -> nn.Module:
    from transformers import PoolFormerConfig, PoolFormerForImageClassification

    return PoolFormerForImageClassification(
        PoolFormerConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], num_labels=10)
    )


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], num_labels=10)
    )


def _convnextv2() -> nn.Module:
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    return ConvNextV2ForImageClassification(
        ConvNextV2Config(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], num_labels=10)
    )


def _clip() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            **_SMALL, intermediate_size=96, image_size=32, patch_size=8, projection_dim=16
        )
    )


def _siglip() -> nn.Module:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig(**_SMALL, intermediate_size=96, image_size=32, patch_size=8)
    )


def _vit_msn() -> nn.Module:
    from transformers import ViTMSNConfig, ViTMSNForImageClassification

    return ViTMSNForImageClassification(ViTMSNConfig(**_VIT))


def _ijepa() -> nn.Module:
    from transformers import IJepaConfig, IJepaForImageClassification

    return IJepaForImageClassification(IJepaConfig(**_VIT))


def _hiera() -> nn.Module:
    from transformers import HieraConfig, HieraForImageClassification

    return HieraForImageClassification(
        HieraConfig(
            image_size=[64, 64],
            embed_dim=16,
            depths=[1, 2, 2, 1],
            num_heads=[1, 2, 4, 8],
            num_labels=10,
        )
    )


def _focalnet() -> nn.Module:
    from transformers import FocalNetConfig, FocalNetForImageClassification

    return FocalNetForImageClassification(
        FocalNetConfig(
            image_size=64, embed_dim=16, depths=[1, 1, 2, 1], num_labels=10, use_layerscale=True
        )
    )


def _cvt() -> nn.Module:
    from transformers import CvtConfig, CvtForImageClassification

    return CvtForImageClassification(
        CvtConfig(embed_dim=[16, 32, 48], num_heads=[1, 2, 3], depth=[1, 2, 3], num_labels=10)
    )


FAMILIES: tuple[Family, ...] = (
    Family("ViT", _vit, (32, 32), 3),
    Family("ViT, eager attention", _vit_eager, (32, 32), 3),
    Family("ViT, interpolated positions", _vit_interpolated, (48, 40), 3),
    Family("DeiT", _deit, (32, 32), 3),
    Family("DeiT, distilled", _deit_distilled, (32, 32), 3),
    Family("BEiT", _beit, (32, 32), 3),
    Family("Data2Vec vision", _data2vec, (32, 32), 3),
    Family("DINOv2", _dinov2, (32, 32), 3),
    Family("DINOv2, SwiGLU", _dinov2_swiglu, (32, 32), 3),
    Family("DINOv2, interpolated positions", _dinov2_interpolated, (48, 40), 3),
    Family("DINOv2 with registers", _dinov2_registers, (32, 32), 3),
    Family("DINOv3 ViT", _dinov3, (32, 32), 3),
    Family("CLIP vision", _clip, (32, 32), 3),
    Family("SigLIP vision", _siglip, (32, 32), 4),
    Family("ViT-MSN", _vit_msn, (32, 32), 3),
    Family("I-JEPA", _ijepa, (32, 32), 3),
    Family("Swin", _swin, (64, 64), 4),
    Family("Swinv2", _swinv2, (64, 64), 4),
    Family("Hiera", _hiera, (64, 64), 6),
    Family("PVT", _pvt, (64, 64), 5),
    Family("PVTv2", _pvt_v2, (64, 64), 5),
    Family("PVTv2, linear attention", _pvt_v2_linear, (64, 64), 4),
    Family("SegFormer", _segformer, (64, 64), 5),
    Family("LeViT", _levit, (64, 64), 6),
    Family("MobileViT", _mobilevit, (64, 64), 9),
    Family(
        "MobileViTV2",
        _mobilevitv2,
        (64, 64),
        3,
        regions=0,
        reason="separable attention has no product of queries and keys: one score for each token, "
        "a softmax over the tokens, a weighted sum; it stays as these operators",
    ),
    Family("CvT", _cvt, (64, 64), 6),
    Family(
        "SwiftFormer",
        _swiftformer,
        (64, 64),
        4,
        regions=0,
        reason="additive attention has no softmax: a learnt vector scores the tokens, their "
        "weighted sum multiplies the keys; it stays as these operators",
    ),
    Family("PoolFormer", _poolformer, (64, 64), 0),
    Family("ConvNeXt", _convnext, (64, 64), 0),
    Family("ConvNeXtV2", _convnextv2, (64, 64), 0),
    Family("FocalNet", _focalnet, (64, 64), 0),
)
