"""The search end to end on few images: every model is there, a stopped run gives the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vitruvius.errors import VitruviusError
from vitruvius.models.datasets import Dataset
from vitruvius.models.distillation import distillation_loss
from vitruvius.models.optimizers import adamw
from vitruvius.models.weights import load_weights
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.models.zoo.network_file import load_network_file
from vitruvius.sim.mpc.network import load_network
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.search.contestants import BASELINES, mixed_config
from vitruvius.sim.mpc.search.front import Front, SearchOptions, run_search
from vitruvius.sim.mpc.search.latency import Place
from vitruvius.sim.mpc.search.lessons import Lesson, load_lesson
from vitruvius.sim.mpc.search.penalty import UnitCosts

CONFIG = MpcVitConfig(
    image_size=(8, 8), patch_size=4, channels=1, classes=2, dim=8, depth=2, heads=2
)
PLACE = Place(load_protocol("crypten"), load_network("wan"))


def lesson() -> Lesson:
    """Bright images above dark ones: 48 to train on, 16 to test on."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.rand(64, 1, 8, 8, generator=generator) + labels[:, None, None, None]

    def sample(index: torch.Tensor, done: float) -> tuple[torch.Tensor, torch.Tensor]:
        assert 0 <= done < 1
        return data.train_images[index] + 0.1 * torch.randn(len(index), 1, 8, 8), labels[index]

    data = Dataset("made", images[:48], labels[:48], images[48:], labels[48:])
    return Lesson("made", CONFIG, data, sample, adamw, 16, 1, epochs=3, search_epochs=2)


def searched(out: Path, stop: str = "", **fields: object) -> tuple[Front, list[str]]:
    """The front, and what was trained: "seed 0: softmax 1" and so on."""
    seen: list[str] = []

    def report(name: str, epoch: int, total: int, loss: float) -> None:
        assert loss == loss
        seen.append(f"{name} {epoch}")
        if seen[-1] == stop:
            raise KeyboardInterrupt

    options = SearchOptions.model_validate({"mu": (0.5,), "penalty": "l1"} | fields)
    return run_search(lesson(), PLACE, options, out, report=report), seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front]:
    out = tmp_path_factory.mktemp("whole")
    return out, searched(out)[0]


def test_every_model_is_there_with_what_it_costs(whole: tuple[Path, Front]) -> None:
    _, front = whole
    names = [*(item.name for item in BASELINES), "mpcvit-0.5", "mpcvit+-0.5"]
    assert [point.name for point in front.points] == names
    points = {point.name: point for point in front.points}
    kept = points["mpcvit-0.5"].kept
    assert kept is not None and sum(map(len, kept)) == 2
    assert points["mpcvit+-0.5"].active is not None and len(points["mpcvit+-0.5"].active) == 1
    cost = PLACE.cost(mixed_config(CONFIG, kept))
    got = points["mpcvit-0.5"]
    assert (got.rounds, got.bytes_sent, got.latency_s) == (
        cost.rounds,
        cost.bytes_sent,
        cost.latency_s,
    )
    assert points["scale"].latency_s < got.latency_s <= points["relu-softmax"].latency_s
    assert points["relu-softmax"].latency_s < points["softmax"].latency_s
    assert points["mpcvit+-0.5"].latency_s < got.latency_s
    assert all(0 <= point.accuracy <= 1 for point in front.points)
    assert len(front.summaries()) == len(names)


@pytest.mark.parametrize(
    "stop",
    ["seed 0: softmax 2", "seed 0: search 1", "seed 0: mpcformer 3", "seed 0: mpcvit 2"],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(
    stop: str, whole: tuple[Path, Front], tmp_path: Path
) -> None:
    out, front = whole
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, stop)
    again, seen = searched(tmp_path)
    name, epoch = stop.rsplit(" ", 1)
    # a training stopped in its last epoch has that on disk and only ends
    later = [text for text in seen if text.startswith(f"{name} ")]
    assert [int(text.rsplit(" ", 1)[1]) for text in later] == list(
        range(int(epoch) + 1, 3 if "search" in name else 4)
    )
    assert again == front
    files = {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.*"))}
    got = {path.relative_to(tmp_path): path.read_bytes() for path in sorted(tmp_path.rglob("*.*"))}
    assert got == files
    # every model has weights and a description; the alphas have no description
    kinds = Counter(path.suffix for path in files)
    assert kinds == {".safetensors": 8, ".toml": 7}


def test_every_description_is_the_model_of_the_weights_beside_it(whole: tuple[Path, Front]) -> None:
    out, _ = whole
    for path in out.rglob("*.toml"):
        entry = load_network_file(path)
        with safe_open(path.with_suffix(".safetensors"), "pt") as file:
            written = json.loads(file.metadata()["model"])
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        assert MpcVitConfig.model_validate(written) == entry.config
        assert {key: tuple(v.shape) for key, v in entry.build().state_dict().items()} == shapes


def test_finished_trainings_are_used_again_and_only_for_their_setting(
    whole: tuple[Path, Front], tmp_path: Path
) -> None:
    out, front = whole
    again, seen = searched(out)
    assert (again, seen) == (front, [])
    # another share reuses teacher, search and baselines; at 3 of 4 units both layers have GELU, so
    # MPCViT+ is MPCViT
    more, seen = searched(out, mu=(0.5, 0.75))
    assert {text.rsplit(" ", 1)[0] for text in seen} == {"seed 0: mpcvit"}
    assert [p for p in more.points if p.mu != 0.75] == list(front.points)
    with pytest.raises(VitruviusError, match=r"softmax.safetensors is of another run \(epochs 3"):
        searched(out, epochs=2)
    path = out / "seed0" / "softmax.safetensors"
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "softmax.safetensors").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(VitruviusError, match="is not a complete safetensors file"):
        searched(tmp_path)


def test_students_are_bound_to_their_teacher(whole: tuple[Path, Front]) -> None:
    out, _ = whole
    (path,) = (out / "seed0").glob("mpcformer-*.safetensors")
    metadata = load_weights(path)[1]
    assert metadata["loss"] == "distillation" and len(metadata["teacher"]) == 16
    config = MpcVitConfig.model_validate_json(metadata["model"])
    assert (config.attention, config.activation) == ("2quad", "quad")


def test_seeds_are_runs_of_their_own(tmp_path: Path) -> None:
    two = searched(tmp_path, seeds=(0, 1), plus=False, epochs=1, search_epochs=1)[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed0", "seed1"]
    row = two.summaries()[0]
    scores = [point.accuracy for point in two.points if point.name == "softmax"]
    assert (row.least, row.largest) == (min(scores), max(scores))
    assert row.accuracy == pytest.approx(sum(scores) / 2)
    assert two.alphas[0] != two.alphas[1]


def test_the_penalty_pulls_alphas_down(tmp_path: Path) -> None:
    free = searched(tmp_path, strength=0.0)[0]
    heavy = searched(tmp_path, strength=10.0)[0]
    costly = searched(tmp_path, strength=10.0, penalty="cost")[0]
    sums = [float(torch.tensor(front.alphas).sum()) for front in (free, heavy, costly)]
    assert sums[1] < sums[0] - 0.1 and sums[2] < sums[0] - 0.1


def test_equal_models_have_equal_configs_and_are_trained_once(tmp_path: Path) -> None:
    assert mixed_config(CONFIG, ((), ())).attention == "scale"
    assert mixed_config(CONFIG, ((0, 1), (0, 1))).attention == "relu_softmax"
    front, seen = searched(tmp_path, mu=(0.0, 1.0), plus=False)
    assert not [text for text in seen if "mpcvit" in text]
    points = {point.name: point for point in front.points}
    assert points["mpcvit-0"].accuracy == points["scale"].accuracy
    assert points["mpcvit-1"].latency_s == points["relu-softmax"].latency_s


@pytest.mark.parametrize(("granularity", "units"), [("layer", 1), ("row", 5)])
def test_other_granularities(granularity: str, units: int, tmp_path: Path) -> None:
    fields = {"granularity": granularity, "penalty": "cost", "epochs": 1, "search_epochs": 1}
    front = searched(tmp_path, plus=False, **fields)[0]
    assert [len(layer) for layer in front.alphas[0]] == [units] * CONFIG.depth
    point = front.points[-1]
    assert point.kept is not None and sorted(map(len, point.kept)) == [0, units]
    # the whole of one layer is the same work whatever its units are
    heads = PLACE.cost(mixed_config(CONFIG, ((0, 1), ())))
    assert (point.rounds, point.bytes_sent) == (heads.rounds, heads.bytes_sent)


def test_distillation_loss_is_the_published_sum() -> None:
    """§1.4: soft cross entropy at T = 1 plus 1.0 times the mean squared difference of features."""
    torch.manual_seed(1)
    logits, told = torch.randn(3, 4), torch.randn(3, 4)
    features, shown = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    soft = -(told.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    expected = soft + ((features - shown) ** 2).mean()
    torch.testing.assert_close(distillation_loss(logits, features, told, shown), expected)


@pytest.mark.parametrize("name", ["digits", "mnistm"])
def test_lessons_show_images_of_their_model(name: str) -> None:
    found = load_lesson(name)
    images, targets = found.sample(torch.arange(5), 0.5)
    assert images.shape == (5, *found.config.input_shape[1:])
    assert len(targets) == 5
    # the test images are another part
    assert found.data.test_images.shape[1:] == images.shape[1:]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mu": (0.5, 1.5)}, "expected shares from 0 to 1, got 1.5"),
        ({"mu": (float("nan"),)}, "expected shares from 0 to 1, got nan"),
        ({"mu": ()}, "expected shares from 0 to 1, got none"),
        ({"strength": -1.0}, "greater than or equal to 0"),
        ({"strength": float("inf")}, "finite"),
        ({"seeds": (-1,)}, "from 0 to 2.63 - 1"),
        ({"epochs": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_options_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchOptions.model_validate(fields)


def test_a_costly_search_keeps_within_its_budget(tmp_path: Path) -> None:
    front = searched(tmp_path, penalty="cost", mu=(0.5,), plus=False, epochs=1)[0]
    point = next(point for point in front.points if point.name == "mpcvit-0.5")
    counts = [len(units) for units in point.kept or ()]
    limit = 0.5 * front.costs.seconds([CONFIG.heads] * CONFIG.depth)
    assert front.costs.seconds(counts) <= limit * (1 + 1e-6)
    assert isinstance(front.costs, UnitCosts) and sorted(counts) == [0, 2]
    assert replace(front, points=()).summaries() == []
