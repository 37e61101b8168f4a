"""Operators of a Vision Transformer as one would write them in JAX, for SPU. Imports jax only.

Names are those of the cost model in sim/mpc/protocols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["prepared"]

Array = Any
Attributes = dict[str, Any]


def prepared(
    op: str, shapes: list[list[int]], attributes: Attributes
) -> tuple[Callable[..., Array], list[Array]]:
    """A function and the random tensors that it is to run on, all of them secret."""
    generator = np.random.default_rng(0)
    if op == "vit":
        model = Encoder(shapes[0], **attributes)
        return model.run, model.tensors(generator)
    low, high = RANGES.get(op, (-2.0, 2.0))
    tensors = [generator.uniform(low, high, shape).astype(np.float32) for shape in shapes]
    if op.startswith("integer_"):
        tensors = [np.round(tensor * 50).astype(np.int32) for tensor in tensors]
    work = OPERATORS[op]
    return lambda *inputs: work(*inputs, **attributes), tensors


def relu_softmax(x: Array) -> Array:
    kept = jax.nn.relu(x)
    return kept / (kept.sum(-1, keepdims=True) + 1e-5)


def two_quad(x: Array) -> Array:
    squared = jnp.square(x + 5)
    return squared / squared.sum(-1, keepdims=True)


def scale(x: Array) -> Array:
    return x * (1 / x.shape[-1])


def layernorm(x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + 1e-5)
    return normal if weight is None or bias is None else normal * weight + bias


def rmsnorm(x: Array, weight: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * weight


def gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def quad(x: Array) -> Array:
    return 0.125 * jnp.square(x) + 0.25 * x + 0.5


def convolution(
    x: Array, weight: Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups
    )


OPERATORS: dict[str, Callable[..., Array]] = {
    "integer_multiply": lambda x, y: x * y,
    "integer_matmul": lambda x, y: x @ y,
    "add": lambda x, y: x + y,
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "multiply": lambda x, y: x * y,
    "public_multiply": lambda x: x * 0.3,
    "square": lambda x: x * x,
    "power2": jnp.square,
    "cube": lambda x: x**3,
    "matmul": jnp.matmul,
    "convolution": convolution,
    "ltz": lambda x: x < 0,
    "less": lambda x, y: x < y,
    "equality": lambda x, y: x == y,
    "where": lambda x, y, z: jnp.where(x < 0, y, z),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hardtanh": lambda x: jnp.clip(x, -1, 1),
    "abs": jnp.abs,
    "sign": jnp.sign,
    "max2": jnp.maximum,
    "max": lambda x: x.max(-1),
    "exp": jnp.exp,
    "reciprocal": lambda x: 1 / x,
    "divide": lambda x, y: x / y,
    "inv_sqrt": jax.lax.rsqrt,
    "sqrt": jnp.sqrt,
    "log": jnp.log,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "silu": jax.nn.silu,
    "gelu_tanh": gelu_tanh,
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_sigmoid": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "quad": quad,
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "relu_softmax": relu_softmax,
    "2quad": two_quad,
    "scale": scale,
    "layernorm": layernorm,
    "rmsnorm": rmsnorm,
}

RANGES = {
    "exp": (-4.0, 0.0),
    "reciprocal": (0.5, 4.0),
    "divide": (0.5, 4.0),
    "inv_sqrt": (0.5, 4.0),
    "sqrt": (0.5, 4.0),
    "log": (0.5, 4.0),
}


class Encoder:
    """MPCViT's encoder with random secret weights: patch embedding, class token, blocks with a norm
    before the attention and one on the residual stream behind it, a last norm, a linear head.

    affine: whether norms have weights. biases: whether linear maps but Q, K and V have them.
    """

    def __init__(
        self,
        patches: list[int],
        layers: int,
        heads: int,
        width: int,
        ratio: int,
        classes: int,
        softmax: str,
        gelu: str,
        affine: bool = False,
        biases: bool = True,
    ) -> None:
        self.patches, self.layers, self.heads = patches, layers, heads
        self.width, self.hidden, self.classes = width, ratio * width, classes
        self.softmax = OPERATORS[{"relu": "relu_softmax"}.get(softmax, softmax)]
        self.gelu = OPERATORS[gelu] if gelu != "identity" else lambda x: x
        self.affine, self.biases = affine, biases

    def tensors(self, generator: np.random.Generator) -> list[Array]:
        width, hidden = self.width, self.hidden

        def linear(rows: int, columns: int) -> list[Array]:
            weight = generator.standard_normal((rows, columns)) / math.sqrt(rows)
            bias = np.zeros(columns) if self.biases else np.zeros(0)
            return [weight.astype(np.float32), bias.astype(np.float32)]

        def norm() -> list[Array]:
            return [np.ones(width, np.float32), np.zeros(width, np.float32)]

        found = [generator.uniform(0, 1, self.patches).astype(np.float32)]
        found += linear(self.patches[1], width)
        found.append(generator.uniform(0, 1, (1, width)).astype(np.float32))
        for _ in range(self.layers):
            found += norm() + linear(width, 3 * width)[:1] + linear(width, width)
            found += norm() + linear(width, hidden) + linear(hidden, width)
        return found + norm() + linear(width, self.classes)

    def run(self, *tensors: Array) -> Array:
        given = iter(tensors)

        def linear(x: Array) -> Array:
            weight, bias = next(given), next(given)
            return x @ weight + bias if self.biases else x @ weight

        def norm(x: Array) -> Array:
            weight, bias = next(given), next(given)
            return layernorm(x, weight, bias) if self.affine else layernorm(x)

        x = linear(next(given))
        x = jnp.concatenate([next(given), x], 0)
        tokens, features = x.shape[0], self.width // self.heads
        for _ in range(self.layers):
            joined = (norm(x) @ next(given)).reshape(tokens, 3, self.heads, features)
            q, k, v = joined.transpose(1, 2, 0, 3)
            weights = self.softmax(q @ k.transpose(0, 2, 1) * features**-0.5)
            mixed = (weights @ v).transpose(1, 0, 2).reshape(tokens, self.width)
            x = norm(x + linear(mixed))
            x = x + linear(self.gelu(linear(x)))
        x = norm(x)
        return linear(x[:1])
