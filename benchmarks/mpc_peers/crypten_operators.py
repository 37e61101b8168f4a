"""Operators of a Vision Transformer as one would write them in CrypTen, each with its PyTorch
reference. Imports crypten and torch only.

Names are those of the cost model in sim/mpc/protocols. Where CrypTen has no such function it is
written out of CrypTen's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import crypten
import torch
from crypten.mpc import MPCTensor
from crypten.mpc.primitives import BinarySharedTensor, beaver
from crypten.mpc.primitives.converters import _A2B
from torch.nn import functional

__all__ = ["prepared"]

Work = Callable[[], Any]
Attributes = dict[str, Any]
ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)


def prepared(
    op: str, shapes: list[list[int]], attributes: Attributes
) -> tuple[Work, torch.Tensor | None]:
    """An operator on shared random tensors, ready to run, and what it should give."""
    low, high = RANGES.get(op, (-2.0, 2.0))
    plain = [low + (high - low) * torch.rand(*shape) for shape in shapes]
    if op in BITWISE:
        return BITWISE[op](plain), None
    shared = [crypten.cryptensor(tensor) for tensor in plain]
    if op == "where":
        bits = (plain[0] < 0).float()
        condition = crypten.cryptensor(plain[0])._ltz()
        return (
            lambda: shared[1].where(condition, shared[2]),
            torch.where(bits.bool(), plain[1], plain[2]),
        )
    work, reference = OPERATORS[op]
    return lambda: work(*shared, **attributes), reference(*plain, **attributes)


def _and(plain: list[torch.Tensor]) -> Work:
    words = [BinarySharedTensor(tensor.long(), src=0) for tensor in plain]
    return lambda: words[0] & words[1]


def _a2b(plain: list[torch.Tensor]) -> Work:
    shared = crypten.cryptensor(plain[0])._tensor
    return lambda: _A2B(shared)


def _b2a(plain: list[torch.Tensor]) -> Work:
    bits = BinarySharedTensor((plain[0] > 0).long(), src=0)
    return lambda: beaver.B2A_single_bit(bits)


BITWISE: dict[str, Callable[[list[torch.Tensor]], Work]] = {"and": _and, "a2b": _a2b, "b2a": _b2a}


def positive_reciprocal(x: MPCTensor) -> MPCTensor:
    with crypten.cfg.temp_override({"functions.reciprocal_all_pos": True}):
        return x.reciprocal()


def maximum(x: MPCTensor, method: str = "log_reduction") -> MPCTensor:
    """The greatest of each row; ``tree`` is max(u, v) = relu(u - v) + v by halves."""
    if method != "tree":
        with crypten.cfg.temp_override({"functions.max_method": method}):
            return x.max(dim=-1)[0]
    while x.size(-1) > 1:
        half = x.size(-1) // 2
        u, v, rest = x.split([half, half, x.size(-1) % 2], dim=-1)
        x = crypten.cat([(u - v).relu() + v, rest], dim=-1)
    return x.squeeze(-1)


def softmax(x: MPCTensor, method: str = "log_reduction") -> MPCTensor:
    if method == "log_reduction":
        return x.softmax(-1)
    exponentials = (x - maximum(x, method).unsqueeze(-1)).exp()
    return exponentials * positive_reciprocal(exponentials.sum(-1, keepdim=True))


def relu_softmax(x: MPCTensor) -> MPCTensor:
    kept = x.relu()
    return kept * positive_reciprocal(kept.sum(-1, keepdim=True) + 1e-5)


def two_quad(x: MPCTensor) -> MPCTensor:
    squared = (x + 5).square()
    return squared * positive_reciprocal(squared.sum(-1, keepdim=True))


def layernorm(
    x: MPCTensor, weight: MPCTensor | None = None, bias: MPCTensor | None = None
) -> MPCTensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    normal = centred * (variance + 1e-5).inv_sqrt()
    return normal if weight is None or bias is None else normal * weight + bias


def layernorm_by_product(x: MPCTensor) -> MPCTensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred * (variance + 1e-5).inv_sqrt()


def rmsnorm(x: MPCTensor, weight: MPCTensor) -> MPCTensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).inv_sqrt() * weight


def gelu_tanh(x: MPCTensor) -> MPCTensor:
    """The cube as two products, which is how the formula is usually typed."""
    inner = (x + x * x * x * 0.044715) * ROOT_TWO_OVER_PI
    return (inner.tanh() + 1) * x * 0.5


def gelu_tanh_square(x: MPCTensor) -> MPCTensor:
    inner = (x + x.square() * x * 0.044715) * ROOT_TWO_OVER_PI
    return (inner.tanh() + 1) * x * 0.5


def quad(x: MPCTensor) -> MPCTensor:
    return x.square() * 0.125 + x * 0.25 + 0.5


def _normalised(x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], *affine)


def _two_quad(x: torch.Tensor) -> torch.Tensor:
    return (x + 5) ** 2 / ((x + 5) ** 2).sum(-1, keepdim=True)


def _rmsnorm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def _row_maximum(x: torch.Tensor, **_: str) -> torch.Tensor:
    return x.amax(-1)


def _relu_softmax(x: torch.Tensor) -> torch.Tensor:
    return x.relu() / (x.relu().sum(-1, keepdim=True) + 1e-5)


def _softmax(x: torch.Tensor, **_: str) -> torch.Tensor:
    return x.softmax(-1)


def _gelu_by_tanh(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def _quad(x: torch.Tensor) -> torch.Tensor:
    return 0.125 * x * x + 0.25 * x + 0.5


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., torch.Tensor]]] = {
    "reveal": (lambda x: x.reveal(), _same),
    "add": (lambda x, y: x + y, torch.add),
    "mean": (lambda x: x.mean(-1), lambda x: x.mean(-1)),
    "sum": (lambda x: x.sum(-1), lambda x: x.sum(-1)),
    "scale": (lambda x: x / x.size(-1), lambda x: x / x.size(-1)),
    "multiply": (lambda x, y: x * y, torch.mul),
    "square": (lambda x: x.square(), torch.square),
    "matmul": (lambda x, y: x.matmul(y), torch.matmul),
    "convolution": (lambda x, w, **how: x.conv2d(w, **how), functional.conv2d),
    "convolution_transposed": (
        lambda x, w, **how: x.conv_transpose2d(w, **how),
        functional.conv_transpose2d,
    ),
    "ltz": (lambda x: x._ltz(), lambda x: (x < 0).float()),
    "less": (lambda x, y: x < y, lambda x, y: (x < y).float()),
    "equality": (lambda x, y: x.eq(y), lambda x, y: (x == y).float()),
    "relu": (lambda x: x.relu(), torch.relu),
    "relu6": (lambda x: x.hardtanh(0, 6), functional.relu6),
    "hardtanh": (lambda x: x.hardtanh(-1, 1), functional.hardtanh),
    "abs": (lambda x: x.abs(), torch.abs),
    "sign": (lambda x: x.sign(), lambda x: 1 - 2 * (x < 0).float()),
    "max2_select": (lambda x, y: crypten.where(x >= y, x, y), torch.maximum),
    "max2": (lambda x, y: (x - y).relu() + y, torch.maximum),
    "max": (maximum, _row_maximum),
    "exp": (lambda x: x.exp(), torch.exp),
    "reciprocal": (positive_reciprocal, torch.reciprocal),
    "reciprocal_any": (lambda x: x.reciprocal(), torch.reciprocal),
    "divide_any": (lambda x, y: x / y, torch.div),
    "inv_sqrt": (lambda x: x.inv_sqrt(), torch.rsqrt),
    "sqrt": (lambda x: x.sqrt(), torch.sqrt),
    "log": (lambda x: x.log(), torch.log),
    "sigmoid": (lambda x: x.sigmoid(), torch.sigmoid),
    "tanh": (lambda x: x.tanh(), torch.tanh),
    "silu": (lambda x: x * x.sigmoid(), functional.silu),
    "gelu_tanh": (gelu_tanh, _gelu_by_tanh),
    "gelu_tanh_square": (gelu_tanh_square, _gelu_by_tanh),
    "gelu_sigmoid": (
        lambda x: x * (x * 1.702).sigmoid(),
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    "quad": (quad, _quad),
    "power": (lambda x, exponent: x.pow(exponent), lambda x, exponent: x**exponent),
    "polynomial": (
        lambda x, degree: x.polynomial([1.0] * degree),
        lambda x, degree: sum((x**power for power in range(2, degree + 1)), x),
    ),
    "softmax": (softmax, _softmax),
    "log_softmax": (lambda x: x.log_softmax(-1), lambda x: x.log_softmax(-1)),
    "relu_softmax": (relu_softmax, _relu_softmax),
    "2quad": (two_quad, _two_quad),
    "layernorm": (layernorm, _normalised),
    "layernorm_by_product": (layernorm_by_product, _normalised),
    "rmsnorm": (rmsnorm, _rmsnorm),
    "norm": (lambda x: x.norm(dim=-1), lambda x: x.norm(dim=-1)),
    "variance": (lambda x: x.var(-1), lambda x: x.var(-1, unbiased=False)),
    "avg_pool": (
        lambda x, kernel_size: x.avg_pool2d(kernel_size),
        functional.avg_pool2d,
    ),
    "max_pool": (
        lambda x, kernel_size: x.max_pool2d(kernel_size, stride=kernel_size),
        functional.max_pool2d,
    ),
    "cumulative_sum": (lambda x: x.cumsum(-1), lambda x: x.cumsum(-1)),
}

RANGES = {
    "2quad": (-5.0, -3.5),  # beyond a sum of 256 the start of the reciprocal is wrong
    "exp": (-4.0, 0.0),
    "reciprocal": (0.5, 4.0),
    "reciprocal_any": (0.5, 4.0),
    "divide_any": (0.5, 4.0),
    "inv_sqrt": (0.5, 4.0),
    "sqrt": (0.5, 4.0),
    "log": (0.5, 4.0),
    "relu6": (-2.0, 8.0),
    "polynomial": (-1.0, 1.0),
    "power": (-1.0, 1.0),
}
