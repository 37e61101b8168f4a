"""Draws where the variants of ConvShareViT look: docs/convshare_attention.png.

    .venv/bin/python benchmarks/convshare_figure.py [--weights DIR]

Attention rollout of the class token over the 16 tokens of four test images and on average, from the
shipped weights, or those of seed 0 in a folder of benchmarks/convshare.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from vitruvius.benchmarks.convshare import configuration, digit_masks
from vitruvius.models.attention_measures import attention_maps, mask_shares, overlap, rollout
from vitruvius.models.datasets import mnistm
from vitruvius.models.graph import execute
from vitruvius.models.trace import trace
from vitruvius.models.train_convshare import VARIANTS
from vitruvius.models.weights import load_into
from vitruvius.models.zoo.convshare import ConvShareVit
from vitruvius.models.zoo.network_file import NETWORKS

__all__ = ["FIGURE", "draw"]

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "convshare_attention.png"
_CLASSES = (2, 4, 6, 9)
_PLANE, _SIDE = 32, 8
_LARGEST = 3.0  # of the colours, in multiples of uniform attention


def draw(folder: Path | None, out: Path) -> None:
    """Writes the figure to ``out``."""
    data, masks = mnistm(), digit_masks()
    objects = mask_shares(masks, _PLANE, _SIDE)
    chosen = [int((data.test_labels == label).nonzero()[0]) for label in _CLASSES]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name in VARIANTS:
        entry = NETWORKS[f"convshare_{name}_mnistm"]
        path = entry.weights if folder is None else folder / f"{name}_0.safetensors"
        assert path is not None
        module = ConvShareVit(configuration(name)).eval()
        load_into(module, path)
        graph = trace(module, (data.test_images[:1],), name=name)
        shares = rollout(attention_maps(graph, data.test_images))
        found[name] = shares, execute(graph, data.test_images).argmax(-1)
    mpl.rcParams["svg.hashsalt"] = "vitruvius"
    rows, columns = len(chosen) + 1, len(found) + 2
    figure = Figure(figsize=(1.45 * columns + 0.9, 1.45 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns)
    titles = ["test image", "digit in tokens", *(_title(name) for name in found)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    tokens = objects.shape[1]
    shown = None
    for row, index in enumerate(chosen):
        place = functional.pad(data.test_images[index], (2, 2, 2, 2), value=1.0)
        axes[row, 0].imshow(place.permute(1, 2, 0).numpy())
        _map(axes[row, 1], tokens * objects[index], masks[index])
        axes[row, 0].set_ylabel(f"a {int(data.test_labels[index])}", fontsize=9)
        for axis, (shares, labels) in zip(axes[row, 2:], found.values(), strict=True):
            shown = _map(axis, tokens * shares[index], masks[index])
            common = overlap(shares[index : index + 1], objects[index : index + 1])
            axis.set_xlabel(f"says {int(labels[index])}, overlap {common:.2f}", fontsize=8)
    mean = masks.mean(0)
    axes[-1, 0].imshow(functional.pad(mean[0], (2, 2, 2, 2)).numpy(), cmap="gray")
    axes[-1, 0].set_ylabel("mean of 1000", fontsize=9)
    _map(axes[-1, 1], tokens * objects.mean(0), None)
    for axis, (shares, _) in zip(axes[-1, 2:], found.values(), strict=True):
        _map(axis, tokens * shares.mean(0), None)
        axis.set_xlabel(f"overlap {overlap(shares, objects):.2f}", fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, shrink=0.5, aspect=30, extend="max")
    bar.set_label("share of a token, 1 = uniform", fontsize=9)
    figure.suptitle(
        "Attention rollout of the class token, 4 x 4 tokens of 8 x 8 pixels (white: outline of the "
        "digit)",
        fontsize=10,
    )
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _map(axis: Axes, shares: Tensor, mask: Tensor | None) -> mpl.image.AxesImage:
    grid = _PLANE // _SIDE
    picture = axis.imshow(
        shares.reshape(grid, grid).float().numpy(),
        cmap="viridis",
        vmin=0,
        vmax=_LARGEST,
        extent=(0, _PLANE, _PLANE, 0),
    )
    if mask is not None:
        whole = functional.pad(mask[0], (2, 2, 2, 2)).numpy()
        middle = torch.arange(_PLANE) + 0.5
        axis.contour(middle, middle, whole, levels=[0.5], colors="white", linewidths=0.8)
    return picture


def _title(name: str) -> str:
    variant: str = configuration(name).variant
    return variant


def main() -> None:
    """Draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--weights", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=FIGURE, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw(arguments.weights, arguments.out)


if __name__ == "__main__":
    main()
