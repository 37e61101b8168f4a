"""docs/convsharevit.md says what benchmarks/convshare.json holds, and that what the weights do."""

from __future__ import annotations

import json

import pytest
import torch

from vitruvius.benchmarks import convshare
from vitruvius.benchmarks.convshare import (
    ACCURACIES,
    ATTENTION,
    CONTROLS,
    DATA,
    PAGE,
    SIZES,
    accuracies,
    attention,
    configuration,
    frames_of_a_block,
    sizes,
)
from vitruvius.benchmarks.convshare_figure import FIGURE
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.train_convshare import VARIANTS
from vitruvius.models.weights import load_weights
from vitruvius.models.zoo.network_file import NETWORKS

RECORD = json.loads(DATA.read_text(encoding="utf-8"))


def test_the_page_is_up_to_date() -> None:
    """Fails when a size, the measurements or a formula changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    for marks, made in ((SIZES, sizes), (ACCURACIES, accuracies), (ATTENTION, attention)):
        assert replaced(page, *marks, made()) == page
    assert FIGURE.name in page and FIGURE.is_file()


def test_every_variant_was_measured_trained_and_untrained() -> None:
    seeds = {
        name: [run["seed"] for run in RECORD["runs"] if run["name"] == name]
        for name in (*VARIANTS, *CONTROLS)
    }
    assert all(seeds[name] == [0, 1, 2] for name in VARIANTS if name != "depthwise")
    assert all(seeds[name][0] == 0 for name in ("depthwise", *CONTROLS))
    assert [item["name"] for item in RECORD["untrained"]] == [*VARIANTS, *CONTROLS]
    for run in (*RECORD["runs"], *RECORD["untrained"]):
        assert run["parameters"] == configuration(run["name"]).parameters
        assert len(run["layers"]) == configuration(run["name"]).depth


@pytest.mark.parametrize("name", VARIANTS)
def test_shipped_weights_are_those_of_seed_0(name: str) -> None:
    path = NETWORKS[f"convshare_{name}_mnistm"].weights
    assert path is not None and path.stat().st_size < 600 * 1024
    metadata = load_weights(path)[1]
    assert (metadata["model"], metadata["seed"]) == (f"convshare_{name}_mnistm", "0")
    (run,) = (run for run in RECORD["runs"] if run["name"] == name and run["seed"] == 0)
    assert float(metadata["test_accuracy"]) == run["stated_accuracy"] == run["accuracy"]


def test_frames_are_kernels_times_planes() -> None:
    """One head, d = 64, MLP ratio 2: 4 d for queries, keys, values and output; 2 d kernels of one
    plane and d of two for the MLP, which is 4 d + r d + d where the camera sees sums of planes.
    """
    config = configuration("valid_full").model_copy(update={"heads": 1})
    assert frames_of_a_block(config) == 4 * 64 + 2 * 64 + 2 * 64
    assert frames_of_a_block(configuration("same")) == 3 * 2 + 2 + 2 + 2


def test_frames_are_those_of_the_mapping() -> None:
    """Pairs of planes that the mapping of the traced graph counts, in all blocks."""
    from vitruvius.models.resolve import resolve_model
    from vitruvius.models.trace import trace
    from vitruvius.optical.mapping import mapped

    workload = resolve_model("convshare_valid_k_mnistm")
    graph = trace(workload.module, workload.example_inputs, name="valid_k")
    pairs = sum(
        item.work.pairs
        for item in mapped(graph, ("conv",))
        if item.work is not None and item.operator.name.startswith("blocks.")
    )
    config = configuration("valid_k")
    assert pairs == config.depth * frames_of_a_block(config)


@pytest.mark.slow
def test_a_digit_lies_in_the_middle_tokens() -> None:
    """Masks are of the digits alone, blended to nothing else: 4 x 4 tokens, the outer ones less."""
    masks = convshare.digit_masks()
    assert masks.shape == (1000, 1, 28, 28) and set(masks.unique().tolist()) == {0.0, 1.0}
    shares = convshare.mask_shares(masks, 32, 8).mean(0).reshape(4, 4)
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares[1:3, 1:3].sum()) > 0.6


@pytest.mark.slow
def test_measuring_again_gives_what_the_page_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("weights")
    for name in VARIANTS:
        path = NETWORKS[f"convshare_{name}_mnistm"].weights
        assert path is not None
        (folder / f"{name}_0.safetensors").write_bytes(path.read_bytes())
    torch.set_num_threads(1)
    found = convshare.measured(folder)
    assert found["uniform"] == pytest.approx(RECORD["uniform"], rel=1e-6)
    runs = found["runs"]
    assert isinstance(runs, list) and len(runs) == len(VARIANTS)
    for run in runs:
        (noted,) = (r for r in RECORD["runs"] if r["name"] == run["name"] and r["seed"] == 0)
        # another machine's sums may turn a close call or two of 1000
        for key in ("accuracy", "uniform_accuracy", "mean_accuracy"):
            assert run[key] == pytest.approx(noted[key], abs=0.002)
        assert run["overlap"] == pytest.approx(noted["overlap"], abs=1e-3)
        for layer, expected in zip(run["layers"], noted["layers"], strict=True):
            assert layer == pytest.approx(expected, rel=1e-3)
