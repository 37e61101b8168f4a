"""The rules of I-ViT (arXiv 2207.01405) as its PyTorch code has them, in float64: a witness.

Nothing here comes from `models.integer.ivit`. Tensors travel as code times scale, as in that code,
and each operator divides by the scale first; quotients are rounded to the codes that they stand for
before anything that is not linear, since float rounding makes the published results depend on the
scale's last bits otherwise. Rules can be replaced by real arithmetic one at a time, which tells
what each of them costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.models.integer_model import IntegerModel

__all__ = ["REPLACED", "PublishedDeit", "Rule", "Scaled", "gelu", "layer_norm", "softmax"]

Rule = Literal[
    "scales", "scores", "step", "exponential", "reciprocal", "weights", "output", "gelu", "norm"
]
REPLACED: Mapping[Rule, str] = {
    "scales": "queries, keys and values with a scale of their own each",
    "scores": "scores that are not rounded to 8 bits",
    "step": "1/S itself for the step `a`",
    "exponential": "an exact exponential for ShiftExp",
    "reciprocal": "an exact reciprocal of a row's sum",
    "weights": "weights that are not rounded to 16 bits",
    "output": "attention that is not rounded to 8 bits",
    "gelu": "an exact GELU for ShiftGELU",
    "norm": "an exact LayerNorm for I-LayerNorm",
}
"""What stands in the place of a rule that is replaced."""
_TOP = 2.0**31 - 1


@dataclass(frozen=True)
class Scaled:
    """Values and the scale [1] or [channels] of which they are multiples."""

    values: Tensor
    scale: Tensor

    @property
    def codes(self) -> Tensor:
        return torch.round(self.values / self.scale)


def _scalar(scale: float) -> Tensor:
    return torch.tensor([scale], dtype=torch.float64)


def _factor(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Mantissas of 31 bits, ties away from zero, and shifts."""
    mantissa, exponent = torch.frexp(ratio)
    return torch.floor(mantissa.abs() * 2**31 + 0.5) * mantissa.sign(), 31 - exponent


def requantized(x: Scaled, scale: float, bits: int, identity: Scaled | None = None) -> Scaled:
    """QuantAct: each branch to the common scale, rounded, added, clamped."""
    total = torch.zeros(())
    for branch in (x,) if identity is None else (x, identity):
        multiplier, shift = _factor(branch.scale / scale)
        total = total + torch.round(torch.ldexp(branch.codes * multiplier, -shift))
    top = 2.0 ** (bits - 1)
    return Scaled(total.clamp(-top, top - 1) * scale, _scalar(scale))


def quantized(x: Tensor, bits: int, scale: float | None = None) -> Scaled:
    """Codes of a float tensor; its largest magnitude gives the scale where none is given."""
    top = 2.0 ** (bits - 1)
    scale = float(x.abs().max()) / (top - 1) if scale is None else scale
    return Scaled(torch.round(x / scale).clamp(-top, top - 1) * scale, _scalar(scale))


def linear(x: Scaled, weight: Tensor, bias: Tensor) -> Scaled:
    """QuantLinear: 8-bit weights with a scale for each row, a bias at the product's scale."""
    rows = weight.abs().amax(1) / 127
    codes = torch.round(weight / rows.unsqueeze(1)).clamp(-128, 127)
    scale = rows * x.scale
    total = (x.values / x.scale) @ codes.t() + torch.round(bias / scale)
    return Scaled(total * scale, scale)


def _step(scale: Tensor) -> Tensor:
    """The published ``floor(-1 / S)`` in float32."""
    return torch.floor(-1.0 / scale.to(torch.float32)).to(torch.float64)


def _exponential(codes: Tensor, step: Tensor, n: int, exact: bool) -> Tensor:
    """``exp`` of codes of step ``-1 / step``, in units of ``-1 / (step * 2**n)``."""
    if exact:
        return torch.exp(codes / -step) * -step * 2.0**n
    codes = codes + torch.floor(codes / 2) - torch.floor(codes / 2**4)
    codes = torch.maximum(codes, n * step)
    quotient = torch.floor(codes / step)
    rest = codes - step * quotient
    return torch.floor((rest / 2 - step) * 2 ** (n - quotient)).clamp(min=0)


def softmax(x: Scaled, rules: frozenset[Rule] = frozenset(), n: int = 15) -> Scaled:
    """IntSoftmax of 16 bits along the last axis."""
    codes = x.values / x.scale if "scores" in rules else x.codes
    codes = codes - codes.amax(-1, keepdim=True)
    step = -1.0 / x.scale if "step" in rules else _step(x.scale)
    weights = _exponential(codes, step, n, "exponential" in rules)
    total = weights.sum(-1, keepdim=True).clamp(max=_TOP)
    share = _TOP / total
    if "reciprocal" not in rules:
        share = torch.floor(share)
    weights = weights * share / 2**16
    if "weights" not in rules:
        weights = torch.floor(weights)
    return Scaled(weights / 2**15, _scalar(2.0**-15))


def gelu(x: Scaled, n: int = 23) -> Scaled:
    """IntGELU, before its requantization."""
    codes = x.codes
    step = _step(x.scale * 1.702)
    largest = codes.amax(-1, keepdim=True)
    own = _exponential(codes - largest, step, n, exact=False)
    other = _exponential(-largest, step, n, exact=False)
    share = torch.floor(_TOP / (own + other).clamp(max=_TOP))
    sigmoid = torch.floor(own * share / 2 ** (31 - 8 + 1))
    scale = x.scale / 2**7
    return Scaled(codes * sigmoid * scale, scale)


def layer_norm(x: Scaled, gamma: Tensor, beta: Tensor) -> Scaled:
    """IntLayerNorm, before its requantization."""
    codes = x.codes
    centred = codes - torch.round(codes.mean(-1, keepdim=True))
    variance = centred.square().sum(-1, keepdim=True)
    root = torch.full_like(variance, 2.0**16)
    for _ in range(10):
        root = torch.floor((root + torch.floor(variance / root)) / 2)
    normal = torch.floor(centred * torch.floor(_TOP / root) / 2)
    unit = math.sqrt(codes.shape[-1]) / 2**30
    normal = normal + torch.floor(beta / gamma / unit)
    return Scaled(normal * unit * gamma, gamma * unit)


@dataclass
class PublishedDeit:
    """A DeiT whose float parameters are ``state``, with the activations' scales of ``model``, which
    was lowered from it without remedies.

    ``replaced``: rules that real arithmetic takes the place of. ``octaves``: of the attentions,
    where they are not the published 15. ``given``: codes that take the place of an operator's
    results, once these are kept in ``codes``, both by the name of the model's operator.
    """

    state: Mapping[str, Tensor]
    model: IntegerModel
    replaced: frozenset[Rule] = frozenset()
    octaves: int = 15
    given: Mapping[str, Tensor] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    def run(self, images: Tensor) -> Tensor:
        """Float64 logits of float images [B, 3, H, W]."""
        operators = self.model.operators
        image = quantized(images.double(), 8, operators[0].scale)
        patch = self._of("patch_embed.weight")
        cut = functional.unfold(image.values, patch.shape[-1], stride=patch.shape[-1])
        columns = Scaled(cut.transpose(1, 2), image.scale)
        x = linear(columns, patch.flatten(1), self._of("patch_embed.bias"))
        x = self._kept("patch_embed", requantized(x, self._scale("patch_embed"), 16))
        cls = self._of("cls_token").expand(len(images), -1, -1)
        positions = quantized(self._of("pos_embed"), 16)
        embed = next(item.name for item in operators if item.kind == "Embed31")
        tokens = Scaled(torch.cat([cls, x.values], 1), x.scale)
        x = self._kept(embed, requantized(tokens, self._scale(embed), 16, positions))
        blocks = 1 + max(int(name.split(".")[1]) for name in self.state if name[:6] == "blocks")
        for block in range(blocks):
            x = self._block(f"blocks.{block}.", x)
        x = self._kept("norm", self._norm("norm", x))
        x = linear(Scaled(x.values[:, 0], x.scale), self._of("head.weight"), self._of("head.bias"))
        return x.values

    def _block(self, name: str, x: Scaled) -> Scaled:
        inside = self._kept(name + "norm1", self._norm(name + "norm1", x))
        inside = self._attention(name + "attn.", inside)
        inside = linear(
            inside, self._of(name + "attn.proj.weight"), self._of(name + "attn.proj.bias")
        )
        proj = name + "attn.proj"
        inside = self._kept(proj, requantized(inside, self._scale(proj), 16))
        first, second = name + "add", name + "add_1"
        x = self._kept(first, requantized(inside, self._scale(first), 16, x))
        inside = self._kept(name + "norm2", self._norm(name + "norm2", x))
        for layer, bits in (("mlp.fc1", 8), ("mlp.fc2", 16)):
            layer = name + layer
            inside = linear(inside, self._of(layer + ".weight"), self._of(layer + ".bias"))
            inside = self._kept(layer, requantized(inside, self._scale(layer), bits))
            if bits == 8:
                inside = self._kept(name + "mlp.act", self._gelu(name + "mlp.act", inside))
        return self._kept(second, requantized(inside, self._scale(second), 16, x))

    def _attention(self, name: str, x: Scaled) -> Scaled:
        joint = linear(x, self._of(name + "qkv.weight"), self._of(name + "qkv.bias"))
        apply = self.model.operator(name + "apply")
        heads = int(apply.attributes["heads"])
        parts = []
        for part, source in enumerate(apply.inputs):
            width = joint.values.shape[-1] // 3
            some = slice(part * width, (part + 1) * width)
            one = Scaled(joint.values[..., some], joint.scale[some])
            scale = self._scale(source)
            if "scales" in self.replaced:
                scale = float(one.values.abs().max()) / 127
            one = self._kept(source, requantized(one, scale, 8))
            split = one.values.unflatten(-1, (heads, -1)).transpose(1, 2)
            parts.append(Scaled(split, one.scale))
        q, k, v = parts
        products = (q.values / q.scale) @ (k.values / k.scale).transpose(-1, -2)
        unit = q.scale * k.scale / math.sqrt(q.values.shape[-1])
        # The scores' scale stands in the model as the ratio to it, 31 bits of it.
        ratio = apply.attributes["score_multiplier"] / 2 ** apply.attributes["score_shift"]
        known = self._scale(apply.inputs[0]) ** 2 / math.sqrt(q.values.shape[-1]) / ratio
        scores = Scaled(products * unit, unit)
        scale = float(torch.tensor(known, dtype=torch.float32))
        if "scores" in self.replaced:
            scores = Scaled(scores.values, _scalar(scale))
        else:
            scores = requantized(scores, scale, 8)
        weights = softmax(scores, self.replaced, self.octaves)
        mixed = (weights.values / weights.scale) @ (v.values / v.scale)
        out = Scaled(mixed * weights.scale * v.scale, weights.scale * v.scale)
        if "output" not in self.replaced and "weights" not in self.replaced:
            out = requantized(out, apply.scale, 8)
        elif "output" not in self.replaced:
            out = quantized(out.values, 8, apply.scale)
        joined = Scaled(out.values.transpose(1, 2).flatten(2), out.scale)
        return self._kept(apply.name, joined)

    def _gelu(self, name: str, x: Scaled) -> Scaled:
        if "gelu" in self.replaced:
            return quantized(functional.gelu(x.values), 8, self._scale(name))
        return requantized(gelu(x), self._scale(name), 8)

    def _norm(self, name: str, x: Scaled) -> Scaled:
        gamma, beta = self._of(name + ".weight"), self._of(name + ".bias")
        if "norm" in self.replaced:
            exact = functional.layer_norm(x.values, gamma.shape, gamma, beta, eps=0)
            return quantized(exact, 8, self._scale(name))
        return requantized(layer_norm(x, gamma, beta), self._scale(name), 8)

    def _kept(self, name: str, x: Scaled) -> Scaled:
        self.codes[name], self.values[name] = x.codes, x.values
        if name in self.given:
            return Scaled(self.given[name].double() * x.scale, x.scale)
        return x

    def _of(self, name: str) -> Tensor:
        return self.state[name].detach().double()

    def _scale(self, name: str) -> float:
        return self.model.operator(name).scale
