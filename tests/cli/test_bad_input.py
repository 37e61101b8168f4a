"""What a user can get wrong: one sentence that says what was expected, what came and where."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitruvius.hwgen.core.machine import load_machine, machine_names
from vitruvius.models.datasets import digits
from vitruvius.models.zoo.model_file import load_model_file
from vitruvius.models.zoo.vit_digits import vit_digits

Refused = Callable[..., str]

MODELS = """
import torch

class Branches(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1

class Strange(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Inner()
        self.second = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.erfinv(self.second(self.first(x)))

class Inner(torch.nn.Module):
    def forward(self, x):
        return torch.cumprod(x, dim=1)

class Plain(torch.nn.Module):
    def __init__(self, value=1.0):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        torch.nn.init.constant_(self.fc.weight, value)

    def forward(self, x):
        return self.fc(x)

def branches():
    return Branches(), torch.ones(1, 4)

def strange():
    return Strange(), torch.zeros(1, 4)

def poisoned():
    return Plain(float("nan")), torch.zeros(1, 4)

def bare():
    return Plain()

def number():
    return 7

def image():
    return torch.nn.Conv2d(1, 4, 2), torch.zeros(1, 1, 8, 8)
"""

MIXTURES = """
import torch
from torch import nn

def expert(hidden):
    return nn.Sequential(nn.Linear(12, hidden), nn.GELU(), nn.Linear(hidden, 12))

class Mixed(nn.Module):
    def __init__(self, widths, chosen):
        super().__init__()
        self.chosen = chosen
        self.embed = nn.Conv2d(1, 12, 4, 4)
        self.norm, self.last, self.head = nn.LayerNorm(12), nn.LayerNorm(12), nn.Linear(12, 3)
        self.gate = nn.Linear(12, len(widths))
        self.experts = nn.ModuleList(map(expert, widths))

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        weights = self.gate(y).softmax(-1)
        top, index = weights.topk(self.chosen, dim=-1)
        routing = torch.zeros_like(weights).scatter(-1, index, top)
        total = routing[..., :1] * self.experts[0](y)
        for place in range(1, len(self.experts)):
            total = total + routing[..., place : place + 1] * self.experts[place](y)
        return self.head(self.last(x + total)[:, 0])

def images(side=16):
    return torch.zeros(1, 1, side, side)

def four_of_three():
    return Mixed([8] * 3, 4), images()

def none_of_three():
    return Mixed([8] * 3, 0), images()

def five_of_six():
    return Mixed([8] * 6, 5), images()

def nine_experts():
    return Mixed([8] * 9, 2), images()

def wide_and_narrow():
    return Mixed([8, 200, 8], 2), images()

def many_tokens():
    return Mixed([8] * 3, 2), images(64)

def deeper():
    module = Mixed([8] * 3, 2)
    module.experts[1] = nn.Sequential(expert(8), nn.GELU(), nn.Linear(12, 12))
    return module, images()
"""

TASKS = """
{top}
[model]
image_size = 16
patch_size = 4
channels = 1
dim = 12
depth = 2
heads = 2
classes = 3
[model.experts]
count = 4
top_k = {chosen}
hidden_ratio = {ratio}
tasks = 2
"""


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MODELS)
    return str(path)


def machine_file(folder: Path, old: str, new: str) -> Path:
    """The shipped small machine with one line changed."""
    shipped = Path(load_machine.__code__.co_filename).parent / "machines" / "small.toml"
    text = shipped.read_text()
    assert len(re.findall(old, text, re.MULTILINE)) == 1
    path = folder / "mine.toml"
    path.write_text(re.sub(old, new, text, flags=re.MULTILINE))
    return path


# 1: unknown names


@pytest.mark.parametrize("verb", ["trace", "quantize", "generate", "estimate", "cosim"])
def test_unknown_model(verb: str, refused: Refused) -> None:
    text = refused(verb, "vit_digit")
    assert text.startswith("unknown model 'vit_digit', did you mean 'vit_digits'")


@pytest.mark.parametrize("verb", ["generate", "estimate", "cosim"])
def test_unknown_machine(verb: str, refused: Refused) -> None:
    text = refused(verb, "vit_digits", "--machine", "smal")
    assert "unknown machine 'smal'" in text
    assert "did you mean 'small'" in text
    assert all(name in text for name in machine_names())


def test_unknown_target(refused: Refused) -> None:
    text = refused("estimate", "vit_digits", "--on", "fpga:zcu10")
    assert "unknown target 'fpga:zcu10'" in text
    assert "'fpga:zcu102'" in text
    assert "fpga:kv260" in refused("demo", "--on", "gpu:h200")


def test_a_missing_or_empty_factory(models: str, refused: Refused) -> None:
    assert "has no factory 'branch', did you mean 'branches'" in refused(
        "trace", f"{models}:branch"
    )
    assert "found none at" in refused("trace", "nowhere.py:net")
    assert "without a factory" in refused("trace", models)
    assert "to return a torch.nn.Module" in refused("trace", f"{models}:number")
    assert "return module, torch.zeros" in refused("trace", f"{models}:bare")


# 2: a module that does not export


def test_a_module_that_does_not_export(models: str, refused: Refused) -> None:
    text = refused("trace", f"{models}:branches")
    assert "mine.py:6" in text
    assert "data-dependent" in text.lower()
    assert len(text.splitlines()) == 1


# 3: operators without a rule


def test_operators_without_a_rule_are_all_listed(models: str, refused: Refused) -> None:
    text = refused("trace", f"{models}:strange")
    first, *rows = text.splitlines()
    assert "2 operators have no rewrite rule" in first
    assert any("cumprod" in row and "first" in row and "mine.py:21" in row for row in rows)
    assert any("erfinv" in row and "root" in row and "mine.py:17" in row for row in rows)


# 4: machines


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (r"^rows = 4$", "rows = 0", ["rows", "greater than 0", "got 0"]),
        (r"^cols = 4$", "cols = 2.5", ["cols", "valid integer", "got 2.5"]),
        (r"^depth = 4$", "", ["depth", "required"]),
        (r"^depth = 4$", "depth = 4\nlanes = 9", ["lanes", "not permitted"]),
        (r"^rows = 4$", "rows = ", ["not readable as TOML"]),
    ],
)
def test_a_machine_out_of_range(
    old: str, new: str, texts: list[str], refused: Refused, tmp_path: Path
) -> None:
    path = machine_file(tmp_path, old, new)
    text = refused("generate", "vit_digits", "--machine", path, "--out", tmp_path / "out")
    assert str(path) in text
    assert all(part in text for part in texts), text
    assert not (tmp_path / "out").exists()


def test_a_buffer_too_small_says_how_much_is_needed(
    refused: Refused, quantized_file: Path, tmp_path: Path
) -> None:
    path = machine_file(tmp_path, r"^token = 24$", "token = 4")
    text = refused("generate", quantized_file, "--machine", path, "--out", tmp_path / "out")
    hidden = 17 * 256  # tokens x activations of the MLP
    assert f"buffers.token needs {hidden} bytes, has 4096, {hidden - 4096} missing" in text
    assert "it fits machine 'small'" in text
    assert not (tmp_path / "out").exists()


# 5 and 6: weights


def test_weights_of_another_shape(refused: Refused, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in vit_digits().state_dict().items()}
    state["head.weight"] = torch.zeros(10, 32)
    save_file(state, tmp_path / "w.safetensors")
    text = refused("trace", "vit_digits", "--weights", tmp_path / "w.safetensors")
    assert "head.weight expected shape [10, 64], got [10, 32]" in text


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_weight_file(size: int, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(vit_digits().state_dict(), path)
    path.write_bytes(path.read_bytes()[:size])
    text = refused("trace", "vit_digits", "--weights", path)
    assert f"{path} is not a complete safetensors file" in text


@pytest.mark.parametrize("verb", ["generate", "cosim", "estimate"])
def test_a_truncated_or_foreign_integer_model(
    verb: str, refused: Refused, quantized_file: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(quantized_file.read_bytes()[:-100])
    assert "is not a complete safetensors file" in refused(verb, short)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    assert "expected an integer model" in refused(verb, foreign)
    text = tmp_path / "text.safetensors"
    text.write_text("not weights at all, but long enough to look like a header")
    assert "is not a complete safetensors file" in refused(verb, text)
    assert "found none at" in refused(verb, tmp_path / "missing.safetensors")


# 7: NaN


def test_nan_in_weights(models: str, refused: Refused, tmp_path: Path) -> None:
    assert "parameter fc.weight holds NaN" in refused("quantize", f"{models}:poisoned")
    state = {name: tensor.clone() for name, tensor in vit_digits().state_dict().items()}
    state["norm.bias"][3] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    text = refused("quantize", "vit_digits", "--weights", tmp_path / "w.safetensors")
    assert "norm.bias" in text
    assert "NaN" in text


def test_calibration_images(models: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    images = digits().train_images[:8].numpy().copy()
    images[2, 0, 3, 3] = np.nan
    images[5, 0, 1, 1] = np.inf
    np.save(path, images)
    text = refused("quantize", "vit_digits", "--calibration", path)
    assert f"{path}: expected finite values, got 2 NaN or infinite of 512" in text
    np.save(path, np.zeros((4, 3, 8, 8), np.float32))
    text = refused("quantize", "vit_digits", "--calibration", path)
    assert "expected [n, 1, 8, 8], got [4, 3, 8, 8]" in text
    np.save(path, np.zeros((4, 64), np.int64))
    assert "got int64 [4, 64]" in refused("quantize", "vit_digits", "--calibration", path)
    np.save(path, np.zeros((0, 1, 8, 8), np.float32))
    assert "at least one image" in refused("quantize", "vit_digits", "--calibration", path)
    np.save(path, np.full((1, 1, 8, 8), 1e39))  # more than a float32 holds
    assert "got 64 NaN or infinite" in refused("quantize", "vit_digits", "--calibration", path)
    path.write_bytes(path.read_bytes()[:-8])
    assert "is not a complete .npy file" in refused("quantize", "vit_digits", "--calibration", path)
    path.write_text("no array")
    assert f"{path} is not a .npy file" in refused("quantize", "vit_digits", "--calibration", path)
    path.unlink()
    assert "found none at" in refused("quantize", "vit_digits", "--calibration", path)
    assert "no data set to calibrate on" in refused("quantize", f"{models}:image")


# 8: output paths


@pytest.mark.parametrize("verb", [["generate", "vit_digits"], ["demo"]])
def test_an_output_folder_that_is_a_file(verb: list[str], refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("precious")
    assert f"expected a folder to write to, got the file {path}" in refused(*verb, "--out", path)
    assert f"{path} is a file, not a folder" in refused(*verb, "--out", path / "below")
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_file_that_is_a_folder(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "m.safetensors"
    folder.mkdir()
    assert f"got the folder {folder}" in refused("quantize", "vit_digits", "--out", folder)
    assert f"got the folder {folder}" in refused("train", "digits", "--out", folder)
    assert f"got the folder {folder}" in refused("trace", "vit_digits", "--json", folder)
    assert "ends in .safetensors" in refused("quantize", "vit_digits", "--out", tmp_path / "m.pt")
    assert list(folder.iterdir()) == []


def test_a_folder_without_permission(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the answer of the system is put in its place."""
    monkeypatch.setattr("vitruvius.reports.writing.os.access", lambda *_: False)
    text = refused("generate", "vit_digits", "--out", tmp_path / "new")
    assert text == f"cannot write {tmp_path / 'new'}: no permission to write in {tmp_path}"
    assert list(tmp_path.iterdir()) == []


# 9: a missing compiler


def test_a_missing_compiler(
    refused: Refused, quantized_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only g++ is taken away."""
    for name in ("make", "perl"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    text = refused("cosim", quantized_file)
    assert "g++ (apt-get install g++)" in text
    assert "make" not in text.replace("cmake", "")
    assert "g++ (apt-get install g++)" in refused("demo", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# 10: numbers of images


def test_a_number_of_images_out_of_range(refused: Refused, quantized_file: Path) -> None:
    assert "at most 360 images" in refused("cosim", quantized_file, "--images", "361")
    assert "at least 1, got 0" in refused("cosim", quantized_file, "--images", "0")
    assert "--weights does not go with" in refused(
        "cosim", quantized_file, "--weights", quantized_file
    )
    assert "is quantized already" in refused("quantize", quantized_file)


# 11: mixtures of experts


@pytest.fixture
def mixtures(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MIXTURES)
    return str(path)


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """The small machine with 8 experts, and a weight buffer as small as can be."""
    return machine_file(tmp_path, r"^weight = 64$", "weight = 1\nexperts = 8")


def tasks_file(folder: Path, top: str = "", chosen: int = 2, ratio: float = 1) -> Path:
    path = folder / "tasks.toml"
    path.write_text(TASKS.format(top=top, chosen=chosen, ratio=ratio))
    return path


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"chosen": 5}, "model.experts: top_k 5 is more than count 4"),
        ({"top": "task = 2"}, "task 2 is not below the number of tasks, 2; the first one is 0"),
        ({"ratio": 0.01}, "model: experts.hidden_ratio 0.01 leaves no hidden channel"),
    ],
    ids=["winners", "task", "width"],
)
@pytest.mark.parametrize("verb", ["trace", "generate"])
def test_a_model_file_whose_mixture_cannot_be(
    verb: str, fields: dict[str, object], text: str, refused: Refused, tmp_path: Path
) -> None:
    path = tasks_file(tmp_path, **fields)
    assert refused(verb, path) == f"model file {path}: {text}"


def test_a_task_without_its_gate(refused: Refused, tmp_path: Path) -> None:
    """The weights of two tasks without the second one's gate, by option or by the file itself."""
    path = tmp_path / "w.safetensors"
    state = load_model_file(tasks_file(tmp_path)).build().state_dict()
    del state["blocks.1.mlp.gates.1.weight"]
    save_file(state, path)
    expected = f"{path} does not fit VisionTransformer: missing blocks.1.mlp.gates.1.weight"
    assert refused("trace", tasks_file(tmp_path), "--weights", path) == expected
    for task in ("", "task = 0\n", "task = 1\n"):
        file = tasks_file(tmp_path, top=f"{task}weights = 'w.safetensors'")
        assert refused("generate", file, "--out", tmp_path / "out") == expected
    assert not (tmp_path / "out").exists()


def test_more_winners_than_experts(mixtures: str, refused: Refused) -> None:
    text = refused("trace", f"{mixtures}:four_of_three")
    assert "topk of more values than the axis has, of a gate of more than there are exp" in text
    assert "mine.py:21" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("none_of_three", "'route': Gate of the 0 best, expected 1 to 4"),
        ("five_of_six", "'route': Gate of the 5 best, expected 1 to 4"),
        ("nine_experts", "buffers.experts needs 9 experts, has 8, 1 missing; it fits machine 'exp"),
        ("many_tokens", "buffers.tokens needs 256 tokens, has 64, 192 missing"),
        ("wide_and_narrow", "that of 'experts.0.0' in 2, that of 'experts.1.0' in 8"),
        ("deeper", "expected of expert 1, which ends in 'experts.1.2', a Linear that reads 'norm'"),
    ],
)
def test_a_mixture_that_a_machine_cannot_run(
    factory: str, text: str, mixtures: str, router: Path, refused: Refused, tmp_path: Path
) -> None:
    side = 64 if factory == "many_tokens" else 16
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).normal(size=(8, 1, side, side)).astype(np.float32))
    told = refused(
        "generate",
        f"{mixtures}:{factory}",
        "--calibration",
        images,
        "--machine",
        router,
        "--out",
        tmp_path / "out",
    )
    assert text in told, told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "chosen"), [("--ivit-mode", "faithful"), ("--ivit-octaves", "fitted")]
)
def test_a_mode_of_another_scheme(refused: Refused, option: str, chosen: str) -> None:
    """Catches an option that is taken and does nothing."""
    text = refused("quantize", "vit_digits", option, chosen)
    assert text == f"{option} {chosen} goes with --scheme ivit only"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--weight-bits", "3"), "weight_bits: expected 8, 6 or 4, got 3"),
        (("--activation-bits", "16"), "activation_bits: expected 8, 6 or 4, got 16"),
        (
            ("--scheme", "ivit", "--weight-bits", "4", "--activation-bits", "6"),
            "expected weight_bits of 8 in scheme ivit, got 4; activation_bits of 8 in scheme ivit, "
            "got 6",
        ),
        (
            ("--scheme", "ivit", "--weight-bits", "0", "--activation-bits", "16"),
            "weight_bits: expected 8, 6 or 4, got 0; activation_bits: expected 8, 6 or 4, got 16",
        ),
    ],
)
def test_widths_that_no_golden_defines(refused: Refused, options: tuple[str, ...], told: str):
    """Catches a width that is taken for a scheme whose published operators do not have it."""
    assert refused("quantize", "vit_digits", *options) == f"quantization options: {told}"


def test_a_task_that_the_model_lacks(refused: Refused) -> None:
    text = refused("cosim", "vit_digits", "--task", "1")
    assert text == "vit_digits: expected a task of 0 to 0, got 1"
