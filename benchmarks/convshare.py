"""Which variants of ConvShareViT learn, and whether they learn attention: docs/convsharevit.md.

    .venv/bin/python benchmarks/convshare.py --train out/convshare
    .venv/bin/python benchmarks/convshare.py --measure out/convshare
    .venv/bin/python benchmarks/convshare.py --write

``--train`` takes about 90 minutes on one core and goes on where it was stopped; ``--measure`` puts
what the trained files in a folder show into convshare.json, ``--write`` that into the page. The
figure is made by benchmarks/convshare_figure.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.attention_measures import (
    AttentionMeasures,
    attention_maps,
    fixed_attention,
    mask_shares,
    measures,
    overlap,
    rollout,
    uniform_measures,
)
from vitruvius.models.datasets import mnistm, mnistm_parts
from vitruvius.models.graph import Graph, execute
from vitruvius.models.trace import trace
from vitruvius.models.train import train
from vitruvius.models.train_convshare import EPOCHS, VARIANTS, convshare_recipe
from vitruvius.models.weights import load_into
from vitruvius.models.zoo.convshare import ConvShareVit
from vitruvius.models.zoo.convshare_config import ConvShareConfig
from vitruvius.models.zoo.network_file import NETWORKS

__all__ = [
    "ACCURACIES",
    "ATTENTION",
    "CONTROLS",
    "DATA",
    "PAGE",
    "SIZES",
    "TITLES",
    "accuracies",
    "attention",
    "configuration",
    "digit_masks",
    "frames_of_a_block",
    "measured",
    "sizes",
]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "convsharevit.md"
DATA = Path(__file__).resolve().parent / "convshare.json"
SIZES, ACCURACIES, ATTENTION = (
    (f"<!-- computed by benchmarks/convshare.py: {part} -->", f"<!-- end of {part} -->")
    for part in ("sizes", "accuracies", "attention")
)
TITLES = {
    "linear": "`linear`",
    "valid_full": "`shared_valid_full`",
    "valid_k": "`shared_valid_k`, 16 kernels of 7",
    "same": "`shared_same`, 1 kernel of 7",
    "depthwise": "`depthwise_same`, 1 kernel of 7",
    "valid_k5": "`shared_valid_k`, 4 kernels of 5",
}
CONTROLS: Mapping[str, tuple[str, dict[str, int]]] = {
    "valid_k5": ("valid_k", {"kernel": 5}),
}
"""Of one seed: valid with about as few weights in a map, 100, as ``same`` has, 49."""

TOP = 3
_SEEDS = (0, 1, 2)
_PANEL = 2160
_FRAMES_PER_S = 2e6
_PASSES = 4  # tokens and kernels are both signed
_MEAN_OVER = 1000  # training images that the mean attention is over


@dataclass(frozen=True)
class _Shown:
    """Test images [n, 3, 28, 28], their labels, the share of the digit in each token, and training
    images.
    """

    images: Tensor
    labels: Tensor
    objects: Tensor
    train_images: Tensor


def configuration(name: str) -> ConvShareConfig:
    """The sizes of a variant or control, for coloured digits."""
    variant, fields = CONTROLS.get(name, (name, {}))
    config = NETWORKS[f"convshare_{variant}_mnistm"].config
    assert isinstance(config, ConvShareConfig)
    return ConvShareConfig.model_validate(config.model_dump() | fields)


def digit_masks() -> Tensor:
    """Where the digits are in the test images of mnistm: float [1000, 1, 28, 28], 0 or 1."""
    return (mnistm_parts()[1].digits >= 0.5).float()


def train_all(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Trains what is missing in ``folder``; controls have the first seed alone."""
    for seed in seeds:
        for name in names:
            out = folder / f"{name}_{seed}.safetensors"
            if out.exists() or (name in CONTROLS and seed != _SEEDS[0]):
                continue
            model = f"convshare_{name}_mnistm"
            recipe = convshare_recipe(model, configuration(name), "mnistm")
            told = partial(_told, f"{model}, seed {seed}")
            train(recipe, out, epochs=EPOCHS["mnistm"], seed=seed, progress=told)


def _told(name: str, epoch: int, epochs: int, loss: float) -> None:
    print(f"{name}: epoch {epoch} of {epochs}, loss {loss:.4f}", flush=True)


def measured(folder: Path) -> dict[str, object]:
    """What the page needs, from every trained file in ``folder``."""
    objects = mask_shares(digit_masks(), 32, 8)
    data = mnistm()
    shown = _Shown(data.test_images, data.test_labels, objects, data.train_images[:_MEAN_OVER])
    config = configuration("linear")
    flat = torch.full((len(objects), config.tokens - 1), 1 / (config.tokens - 1))
    record: dict[str, object] = {
        "test_images": len(shown.labels),
        "uniform": asdict(uniform_measures(config.tokens, config.grid, config.token_side, top=TOP))
        | {"overlap": overlap(flat, objects), "fixed_overlap": overlap(flat, objects)},
    }
    runs, untrained = [], []
    for name in TITLES:
        untrained.append(_run(name, None, None, shown))
        for seed in _SEEDS:
            path = folder / f"{name}_{seed}.safetensors"
            if path.exists():
                runs.append(_run(name, seed, path, shown))
                print(name, seed, json.dumps(runs[-1]), flush=True)
    return record | {"runs": runs, "untrained": untrained}


def _run(name: str, seed: int | None, path: Path | None, shown: _Shown) -> dict[str, object]:
    """One model, or without a file one with random weights."""
    torch.manual_seed(0)
    config = configuration(name)
    module = ConvShareVit(config).eval()
    metadata = load_into(module, path) if path is not None else {}
    graph = trace(module, (shown.images[:1],), name=name)
    maps = attention_maps(graph, shown.images)
    found = [measures(layer, config.grid, config.token_side, top=TOP) for layer in maps]
    seen = rollout(maps)
    record: dict[str, object] = {
        "name": name,
        "seed": seed,
        "parameters": config.parameters,
        "macs": sum(op.macs for op in graph.operators()),
        "layers": [asdict(item) for item in found],
        "overlap": overlap(seen, shown.objects),
        "fixed_overlap": overlap(seen.mean(0).expand_as(seen), shown.objects),
    }
    if path is None:
        return record
    average = attention_maps(graph, shown.train_images).mean(1)
    tokens = config.tokens
    uniform = torch.full((config.heads, tokens, tokens), 1 / tokens)
    return record | {
        "stated_accuracy": float(metadata["test_accuracy"]),
        "accuracy": _accuracy(graph, shown),
        "uniform_accuracy": _accuracy(fixed_attention(graph, [uniform] * config.depth), shown),
        "mean_accuracy": _accuracy(fixed_attention(graph, list(average)), shown),
    }


def _accuracy(graph: Graph, shown: _Shown) -> float:
    return float((execute(graph, shown.images).argmax(-1) == shown.labels).double().mean())


def sizes() -> list[str]:
    """Parameters, work and frames of every variant, from its sizes alone."""
    lines = [
        "| variant | parameters | weights of a map | multiply-accumulates | tokens on a panel | "
        "frames of a block | µs for an image: maps | and scores |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    macs = {item["name"]: item["macs"] for item in _record()["untrained"]}
    for name, title in TITLES.items():
        config = configuration(name)
        side, kernel = config.token_side, config.kernel_side
        pitch = side + kernel // 2 if config.padded else side
        tiles = (_PANEL // pitch) ** 2
        frames = frames_of_a_block(config)
        maps_s = _PASSES * config.depth * frames * config.tokens / tiles / _FRAMES_PER_S
        pairs = config.heads * config.width * config.tokens**2
        scores = -(-pairs // (_PANEL // side) ** 2)
        scores_s = _PASSES * config.depth * scores / _FRAMES_PER_S
        rows, columns = config.map_sizes(1, config.width)
        lines.append(
            f"| {title} | {config.parameters:,} | {rows * columns:,} | "
            f"{macs[name] / 1e6:.2f} M | {tiles:,} | {frames:,} | {1e6 * maps_s:.3f} | "
            f"{1e6 * scores_s:.1f} |"
        )
    return lines


def frames_of_a_block(config: ConvShareConfig) -> int:
    """Kernels times planes that they read, in all maps of a block: frames for one panel of tokens
    in one pass, sums over planes in electronics. With one head, 4 d + 2 r d of kernels of a whole
    token.
    """
    inner, hidden = config.heads * config.width, config.mlp_ratio * config.width
    maps = ((1, 3 * inner), (inner, 1), (1, hidden), (hidden, 1))
    return sum(planes * made * config.kernels_per_plane for planes, made in maps)


def accuracies() -> list[str]:
    """Accuracy as trained, with uniform attention and with the mean attention."""
    lines = [
        "| variant | seeds | test accuracy | least to most | attention uniform | "
        "attention as on average |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in _runs().items():
        found = [run["accuracy"] for run in runs]
        cells = [
            TITLES[name],
            str(len(runs)),
            f"{mean(found):.1%}",
            f"{min(found):.1%} to {max(found):.1%}" if len(runs) > 1 else "",
            f"{mean(run['uniform_accuracy'] for run in runs):.1%}",
            f"{mean(run['mean_accuracy'] for run in runs):.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def attention() -> list[str]:
    """The measures by variant and layer: trained, plus or minus the spread, and untrained."""
    record = _record()
    untrained = {item["name"]: item for item in record["untrained"]}
    lines = [
        "| variant | layer | entropy | distance, pixels | top 3 | variation | rollout on digit | "
        "mean rollout on digit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| uniform | | {_cells(record['uniform'])} | {_on_digit([record['uniform']])} |",
    ]
    for name, runs in _runs().items():
        for layer in range(len(runs[0]["layers"])):
            found = [run["layers"][layer] for run in runs]
            cells = " | ".join(
                _spread([item[key] for item in found], digits) for key, digits in _COLUMNS.items()
            )
            on = " | " if layer else _on_digit(runs)
            lines.append(f"| {TITLES[name] if not layer else ''} | {layer} | {cells} | {on} |")
        before = untrained[name]
        averaged = {
            key: mean(layer[key] for layer in before["layers"]) for key in before["layers"][0]
        }
        lines.append(f"| | untrained | {_cells(averaged)} | {_on_digit([before])} |")
    return lines


_COLUMNS = {"entropy": 3, "distance_pixels": 1, "top_share": 3, "variation": 3}
assert set(_COLUMNS) == set(AttentionMeasures.__dataclass_fields__)


def _cells(values: Mapping[str, float]) -> str:
    return " | ".join(f"{values[key]:.{digits}f}" for key, digits in _COLUMNS.items())


def _on_digit(runs: Sequence[Mapping[str, float]]) -> str:
    return " | ".join(
        _spread([run[key] for run in runs], 3) for key in ("overlap", "fixed_overlap")
    )


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def _record() -> dict:  # type: ignore[type-arg]
    found: dict = json.loads(DATA.read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return found


def _runs() -> dict[str, list]:  # type: ignore[type-arg]
    runs = _record()["runs"]
    found = {name: [run for run in runs if run["name"] == name] for name in TITLES}
    return {name: items for name, items in found.items() if items}


def main() -> None:
    """Trains, measures or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--train", type=Path, metavar="DIR")
    parser.add_argument("--names", nargs="+", default=[*VARIANTS, *CONTROLS], help="with --train")
    parser.add_argument("--seeds", nargs="+", type=int, default=_SEEDS, help="with --train")
    parser.add_argument("--measure", type=Path, metavar="DIR", help=f"into {DATA.name}")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train:
        train_all(arguments.train, arguments.names, arguments.seeds)
    if arguments.measure:
        record = measured(arguments.measure)
        DATA.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    parts = ((SIZES, sizes), (ACCURACIES, accuracies), (ATTENTION, attention))
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        for marks, made in parts:
            page = replaced(page, *marks, made())
        PAGE.write_text(page, encoding="utf-8")
    elif not arguments.train and not arguments.measure:
        for _, made in parts:
            print("\n".join(made()), end="\n\n")


if __name__ == "__main__":
    main()
