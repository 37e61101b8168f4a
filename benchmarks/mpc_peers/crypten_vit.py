"""The encoder of MPCViT's CIFAR model in CrypTen, with random shared weights, counted in parts.

Norms stand where MPCViT has them: one before the attention, one on the residual stream itself
behind it, one at the end; they have no weights of their own, biases are left out since adding
costs no traffic. Imports crypten and torch only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import crypten
import crypten.communicator as communicator
import crypten_operators
import torch
from crypten.mpc import MPCTensor

__all__ = ["prepared"]

NORMALISERS: dict[str, Callable[[MPCTensor], MPCTensor]] = {
    "softmax": crypten_operators.softmax,
    "relu": crypten_operators.relu_softmax,
    "2quad": crypten_operators.two_quad,
    "scale": lambda scores: scores / scores.size(-1),
}
ACTIVATIONS: dict[str, Callable[[MPCTensor], MPCTensor]] = {
    "gelu_tanh": crypten_operators.gelu_tanh,
    "quad": crypten_operators.quad,
    "relu": lambda x: x.relu(),
}


def prepared(
    op: str, shapes: list[list[int]], attributes: dict[str, Any]
) -> tuple[Callable[[], dict[str, Any]], None]:
    """A run of the model, which gives rounds and bytes by part. ``shapes`` are those of the
    patches of an image: tokens without the class token, and pixels of a patch.
    """
    del op
    model = _Encoder(shapes[0], **attributes)
    return model.run, None


class _Encoder:
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
    ) -> None:
        self.heads, self.features = heads, width // heads
        self.softmax, self.gelu = NORMALISERS[softmax], ACTIVATIONS[gelu]
        self.image = crypten.cryptensor(torch.rand(*patches))
        self.embedding = _shared(patches[1], width)
        self.token = crypten.cryptensor(torch.rand(1, width))
        self.head = _shared(width, classes)
        self.layers = [
            (
                _shared(width, 3 * width),
                _shared(width, width),
                _shared(width, ratio * width),
                _shared(ratio * width, width),
            )
            for _ in range(layers)
        ]
        self.counted: dict[str, list[int]] = {}

    def part(self, name: str, work: Callable[..., MPCTensor], *inputs: MPCTensor) -> MPCTensor:
        link = communicator.get()
        before = link.get_communication_stats()
        result = work(*inputs)
        after = link.get_communication_stats()
        known = self.counted.setdefault(name, [0, 0])
        known[0] += after["rounds"] - before["rounds"]
        known[1] += int(after["bytes"] - before["bytes"])
        return result

    def split(self, x: MPCTensor) -> MPCTensor:
        return x.view(x.size(0), self.heads, self.features).transpose(0, 1)

    def run(self) -> dict[str, Any]:
        self.counted = {}
        product = lambda x, y: x.matmul(y)  # noqa: E731
        x = self.part("patch embedding", product, self.image, self.embedding)
        x = crypten.cat([self.token, x], dim=0)
        for qkv, projection, up, down in self.layers:
            normal = self.part("layernorm", crypten_operators.layernorm, x)
            joined = self.part("linear", product, normal, qkv)
            q, k, v = (self.split(part) for part in joined.split(qkv.size(0), dim=1))
            scores = self.part("attention products", product, q, k.transpose(1, 2))
            weights = self.part("attention normaliser", self.softmax, scores / self.features**0.5)
            mixed = self.part("attention products", product, weights, v)
            mixed = mixed.transpose(0, 1).reshape(x.size(0), x.size(1))
            x = x + self.part("linear", product, mixed, projection)
            x = self.part("layernorm", crypten_operators.layernorm, x)
            hidden = self.part("linear", product, x, up)
            hidden = self.part("activation", self.gelu, hidden)
            x = x + self.part("linear", product, hidden, down)
        x = self.part("layernorm", crypten_operators.layernorm, x)
        self.part("head", product, x[:1], self.head)
        return {
            name: {"rounds": rounds, "bytes": count}
            for name, (rounds, count) in self.counted.items()
        }


def _shared(rows: int, columns: int) -> MPCTensor:
    return crypten.cryptensor(torch.randn(rows, columns) / rows**0.5)
