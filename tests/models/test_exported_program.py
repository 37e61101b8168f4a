"""Saved programs: the same numbers as the module, and nothing in a file runs."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim, export, save

from vitruvius.errors import VitruviusError
from vitruvius.models.exported_archive import plain_size
from vitruvius.models.exported_program import load_program
from vitruvius.models.graph import Operator, execute_all
from vitruvius.models.trace import trace


class Net(nn.Module):
    """A convolution, an in-place activation, a buffer, a flag and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, images: torch.Tensor, flag: bool = True) -> dict[str, torch.Tensor]:
        features = self.body(images)
        return {"logits": self.head(features.mean((2, 3)) + self.shift), "features": features}


IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    save(export(Net().eval(), (IMAGES, True), dynamic_shapes=({0: Dim.AUTO}, None)), path)
    return path


def edited(file: Path, folder: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of the archive with each record replaced by what ``edit`` gives; None drops it."""
    path = folder / "edited.pt2"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = edit(entry.filename.partition("/")[2], source.read(entry))
            if data is not None:
                target.writestr(zipfile.ZipInfo(entry.filename), data)
    return path


def with_model(file: Path, folder: Path, edit: Callable[[dict], None]) -> Path:
    """A copy whose program's JSON was changed in place by ``edit``."""

    def change(name: str, data: bytes) -> bytes:
        if name != "models/model.json":
            return data
        model = json.loads(data)
        edit(model)
        return json.dumps(model).encode()

    return edited(file, folder, change)


def refused(path: Path) -> str:
    with pytest.raises(VitruviusError) as error:
        load_program(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


class Runs:
    """What a pickle can do: calls a function when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_program_gives_the_modules_numbers(file: Path) -> None:
    module, inputs = load_program(file)
    assert torch.equal(inputs[0], IMAGES)
    expected = Net().eval()(IMAGES)
    got = module(IMAGES)
    assert torch.equal(got[0], expected["logits"])
    assert torch.equal(got[1], expected["features"])
    assert {key for key, _ in module.named_parameters()} == {k for k, _ in Net().named_parameters()}
    assert torch.equal(module.state_dict()["shift"], Net().shift)


def test_a_program_is_traced_like_its_module(file: Path) -> None:
    module, inputs = load_program(file)
    graph = trace(module, inputs, name="net")
    twin = trace(Net(), (IMAGES,), name="net")
    assert [(o.kind, o.macs, o.params) for o in graph.operators()] == [
        (o.kind, o.macs, o.params) for o in twin.operators()
    ]
    expected = Net().eval()(IMAGES)
    got = execute_all(graph, IMAGES)
    torch.testing.assert_close(got[0], expected["logits"])


def test_weights_can_be_loaded_into_a_program(file: Path) -> None:
    module, _ = load_program(file)
    state = {key: tensor + 1 for key, tensor in Net().state_dict().items()}
    module.load_state_dict(state)
    other = Net().eval()
    other.load_state_dict(state)
    torch.testing.assert_close(module(IMAGES)[0], other(IMAGES)["logits"])


def test_inputs_that_were_not_saved_are_zeros_of_the_saved_shape(tmp_path: Path) -> None:
    program = export(Net().eval(), (IMAGES,))
    program._example_inputs = None
    save(program, tmp_path / "net.pt2")
    _, inputs = load_program(tmp_path / "net.pt2")
    assert inputs[0].shape == (2, 3, 6, 6)
    assert not inputs[0].any()


def test_no_file(tmp_path: Path) -> None:
    assert "expected a saved program, found none" in refused(tmp_path / "none.pt2")


def test_a_truncated_file(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.pt2"
    data = file.read_bytes()
    for size in (len(data) // 2, len(data) - 10, 40):
        path.write_bytes(data[:size])
        assert f"is truncated or damaged ({size} bytes)" in refused(path)
    path.write_bytes(b"")
    assert "expected a zip archive, got 0 bytes" in refused(path)


def test_a_damaged_record(file: Path, tmp_path: Path) -> None:
    path = edited(
        file, tmp_path, lambda name, data: data[:-4] if name == "models/model.json" else data
    )
    assert "models/model.json cannot be read: JSONDecodeError" in refused(path)


def test_a_missing_record(file: Path, tmp_path: Path) -> None:
    path = edited(file, tmp_path, lambda name, data: None if "sample_inputs" in name else data)
    assert "failed locating file data/sample_inputs/model.pt" in refused(path)


def test_another_zip(tmp_path: Path) -> None:
    path = tmp_path / "notes.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "none")
    assert "is a zip archive, but not a .pt2 file: it holds notes.txt" in refused(path)


def test_torchscript_and_checkpoints_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert "is a TorchScript file, not an exported program: write one with" in refused(path)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "is a pickled checkpoint (torch.save), not an exported program" in refused(path)


def test_another_torch_is_named_with_this_one(file: Path, tmp_path: Path) -> None:
    def older(model: dict) -> None:
        model["torch_version"], model["schema_version"]["major"] = "1.99.0", 7

    text = refused(with_model(file, tmp_path, older))
    assert f"was written by PyTorch 1.99.0 (schema 7), this is {torch.__version__}" in text

    path = edited(file, tmp_path, lambda name, data: b"9" if name == "archive_version" else data)
    text = refused(path)
    assert f"archive version 9, written by PyTorch {torch.__version__}" in text
    assert "reads version 0: export the module again here" in text


def test_an_operator_that_this_torch_lacks_is_named_with_both_versions(
    file: Path, tmp_path: Path
) -> None:
    def newer(model: dict) -> None:
        model["torch_version"] = "9.1.0"
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.convolve9.default"

    text = refused(with_model(file, tmp_path, newer))
    assert f"it was written by PyTorch 9.1.0, this is {torch.__version__}" in text


def test_a_program_of_torch_2_7(tmp_path: Path) -> None:
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.5")
        archive.writestr("serialized_exported_program.json", "{}")
    assert "is a .pt2 file of PyTorch 2.7 or earlier" in refused(path)


def test_pickles_are_not_run(file: Path, tmp_path: Path) -> None:
    """Each record that PyTorch itself would unpickle, with a pickle that makes a folder."""
    trap = tmp_path / "made"
    bomb = pickle.dumps(Runs(trap))
    torch.save(Runs(trap), tmp_path / "bomb.pt")
    saved = (tmp_path / "bomb.pt").read_bytes()

    path = edited(file, tmp_path, lambda name, data: saved if "sample_inputs" in name else data)
    assert "data/sample_inputs/model.pt is not loaded: unpickling" in refused(path)

    def pickled_weight(name: str, data: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            config = json.loads(data)
            config["config"]["head.bias"]["use_pickle"] = True
            config["config"]["head.bias"]["path_name"] = "weight_0"
            return json.dumps(config).encode()
        return saved if name == "data/weights/weight_0" else data

    assert "data/weights/weight_0 is not loaded" in refused(edited(file, tmp_path, pickled_weight))

    for record in ("data/constants/opaque_obj_0", "data/constants/custom_obj_0"):
        path = edited(file, tmp_path, lambda name, data: data)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"net/{record}", bomb)
        assert f"{record} is not loaded: unpickling" in refused(path)
    assert not trap.exists()


def test_code_and_foreign_operators_are_refused(file: Path, tmp_path: Path) -> None:
    trap = tmp_path / "made"

    def size(model: dict) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        values[next(iter(values))]["sizes"][0] = {
            "as_expr": {
                "expr_str": f"__import__('os').mkdir('{trap}')",
                "hint": {"as_int": 2},
            }
        }

    assert "is not an arithmetic expression" in refused(with_model(file, tmp_path, size))

    def operator(model: dict) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"

    assert "expected operators of PyTorch's own (aten), got torch.hub.load" in refused(
        with_model(file, tmp_path, operator)
    )

    def library(model: dict) -> None:
        target = "torch.ops.torchvision.nms.default"
        model["graph_module"]["graph"]["nodes"][0]["target"] = target

    assert "got torchvision.nms.default" in refused(with_model(file, tmp_path, library))

    def name(model: dict) -> None:
        model["graph_module"]["graph"]["nodes"][0]["name"] = "x\nimport os"

    assert "is no name of a value" in refused(with_model(file, tmp_path, name))

    def tree(model: dict) -> None:
        call = model["graph_module"]["module_call_graph"][0]["signature"]
        call["in_spec"] = '[1, {"type": "collections.defaultdict", "context": "{}"}]'

    assert "takes or returns a collections.defaultdict" in refused(with_model(file, tmp_path, tree))

    path = edited(file, tmp_path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/aotinductor/model/model.so", b"")
    assert "holds compiled code" in refused(path)
    assert not trap.exists()


def test_guards_are_not_run(file: Path, tmp_path: Path) -> None:
    trap = tmp_path / "made"

    def guard(model: dict) -> None:
        model["guards_code"] = [f"__import__('os').mkdir('{trap}') or True"]

    module, inputs = load_program(with_model(file, tmp_path, guard))
    trace(module, inputs, name="net")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Add(Integer(-1), Mul(Integer(2), Symbol('s0', integer=True)))", True),
        ("FloorDiv(s0, 2) + Max(1, u3)", True),
        ("s0.__class__", False),
        ("exec('1')", False),
        ("Symbol('x y')", False),
        ("(lambda: s0)()", False),
        ("[s0 for s0 in s0]", False),
        ("s0[0]", False),
        ("unknown", False),
        ("s0 +", False),
    ],
)
def test_sizes_are_arithmetic(text: str, plain: bool) -> None:
    assert plain_size(text) is plain


def test_a_program_of_one_image_is_observed_on_batches(digits_workload, digit_images) -> None:
    """What calibration sees is the same whether or not the batch was kept symbolic."""
    module = digits_workload.module
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.pt2"
        save(export(module, digits_workload.example_inputs), path)
        saved, inputs = load_program(path)
    one = trace(saved, inputs, name="digits")
    many = trace(module, inputs, name="digits")
    assert not one.batched
    images = digit_images.calibration_images[:5]
    seen: dict[str, torch.Tensor] = {}
    execute_all(many, images, observe=lambda item, value: seen.update({item.name: value}))

    def compare(item: Operator, value: torch.Tensor) -> None:
        if seen[item.name].shape[0] == len(images):  # elsewhere an axis precedes the batch
            torch.testing.assert_close(value, seen[item.name])

    execute_all(one, images, observe=compare)
