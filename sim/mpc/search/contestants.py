"""The models that MPCViT is compared with, as configs of the same family."""

from __future__ import annotations

from dataclasses import dataclass

from ....models.zoo.mpcvit_config import MpcVitConfig

__all__ = ["BASELINES", "Baseline", "mixed_config"]


@dataclass(frozen=True)
class Baseline:
    """A model without a search: ``fields`` are what it changes in the config of the softmax model;
    ``note`` says what of the published one it is.
    """

    name: str
    title: str
    fields: dict[str, str]
    note: str

    def config(self, base: MpcVitConfig) -> MpcVitConfig:
        """The config of the baseline."""
        return MpcVitConfig.model_validate(base.model_dump() | self.fields)


BASELINES: tuple[Baseline, ...] = (
    Baseline("softmax", "softmax", {"attention": "softmax"}, "the teacher; GELU by tanh"),
    Baseline(
        "relu-softmax",
        "ReLU-softmax",
        {"attention": "relu_softmax"},
        "relu(S) over its sum in all heads",
    ),
    Baseline("scale", "ScaleAttn", {"attention": "scale"}, "S / N in all heads"),
    Baseline(
        "mpcformer",
        "MPCFormer-like",
        {"attention": "2quad", "activation": "quad"},
        "2Quad attention, (S + 5)² over its sum, and Quad, 0.125 x² + 0.25 x + 0.5, for GELU (Li "
        "et al. 2023, arXiv 2211.01452); LayerNorm stays, and training is from nothing, not from "
        "the teacher's weights",
    ),
    Baseline(
        "the-x",
        "THE-X-like",
        {"attention": "the_x", "activation": "relu", "norms": "affine"},
        "relu((S / 2 + 1)³) times a trained network of three layers for the reciprocal of its sum, "
        "ReLU for GELU, a weight and a bias for LayerNorm (Chen et al. 2022, arXiv 2206.00216); "
        "training is from nothing, not from the teacher's weights",
    ),
)


def mixed_config(
    base: MpcVitConfig,
    kept: tuple[tuple[int, ...], ...],
    active: tuple[int, ...] | None = None,
) -> MpcVitConfig:
    """MPCViT with ReLU-softmax in the units that ``kept`` lists for each layer; MPCViT+ with an
    activation in the layers ``active`` only.

    All units or none is a kind of attention of its own, so that equal models have equal configs.
    """
    fields: dict[str, object] = {"attention": "mixed", "relu_softmax": kept}
    if sum(map(len, kept)) in (0, base.depth * base.units):
        fields = {"attention": "relu_softmax" if any(kept) else "scale", "granularity": "head"}
    if active is not None and len(active) < base.depth:
        names = ("gelu_tanh" if layer in active else "linear" for layer in range(base.depth))
        fields["activation"] = tuple(names)
    return MpcVitConfig.model_validate(base.model_dump() | fields)
