"""What the parties compute locally, in seconds: products modulo 2^64, and the work around every
word that is opened, which is mostly masks, copies and sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...models.graph import Operator
from ..estimate import Assumption
from .protocols import Protocol
from .traffic import Traffic

__all__ = ["COMPUTE", "ComputeModel", "compute_model"]

_WORD = 8


@dataclass(frozen=True)
class ComputeModel:
    """Seconds of one party.

    products: ring products that a party does for one of the model's; macs_s: multiply-accumulates
    a second; word_s: seconds for each word that it sends.
    """

    products: int
    macs_s: float
    word_s: float
    source: str

    def seconds(self, op: Operator, online: Traffic) -> float:
        """What one operator takes, beside rounds and bytes."""
        return self.products * op.macs / self.macs_s + self.word_s * online.bytes_sent / _WORD

    def assumption(self) -> Assumption:
        """The coefficients as an estimate lists them."""
        return Assumption(
            f"local compute: {self.products} ring products for one of the model's, "
            f"{self.macs_s / 1e9:.3g} G multiply-accumulates a second, {self.word_s * 1e9:.3g} ns "
            "by word sent",
            self.source,
        )


_MACS_S, _WORD_S = 14e9, 90e-9
_RUN = (
    "benchmarks/mpc_compute.py, torch 2.13 on an AMD EPYC, one thread for each of two processes on "
    "loopback: GELU, softmax and linear maps of the CIFAR ViT, masks and sockets in it"
)
COMPUTE = {
    "crypten": ComputeModel(2, _MACS_S, _WORD_S, f"measured: {_RUN}"),
    "semi2k": ComputeModel(2, _MACS_S, _WORD_S, f"assumed: as protocol crypten here, {_RUN}"),
    "aby3": ComputeModel(3, _MACS_S, _WORD_S, f"assumed: as protocol crypten here, {_RUN}"),
    "cheetah": ComputeModel(
        1,
        0.81e6,
        0.84e-6,
        "fit: one CIFAR block of SPU 0.9.5 on two cores, 45.6 s for 37 M multiply-accumulates "
        "under encryption, 13.4 s for the other 128 MB",
    ),
}
"""By protocol."""


def compute_model(protocol: Protocol) -> ComputeModel:
    """The coefficients for a protocol."""
    return COMPUTE[protocol.name]
