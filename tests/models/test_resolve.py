"""What the user may type as MODEL, and one sentence for each way it can go wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.resolve import resolve_model, zoo_names

NETS = """\
import torch
from torch import nn
from sibling import WIDTH


class Net(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.layer = nn.Linear(width, 2)

    def forward(self, x):
        return self.layer(x)


class Stated(nn.Module):
    image_size = (12, 20)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 2, 3)


class Configured(nn.Module):
    class config:
        image_size = 16
        num_channels = 4


def with_tensor():
    return Net(), torch.zeros(1, 3)


def with_list():
    return Net().train(), [torch.zeros(1, 3), torch.ones(1, 4)]


def without_inputs():
    return Net()


def raises():
    width = "three"
    return Net(width)


def needs(width, *, depth):
    return Net(width)


def nonsense():
    return 1, 2


def text_inputs():
    return Net(), "zeros"


def infinite():
    net = Net()
    net.layer.weight.data[0, 0] = float("nan")
    return net, torch.zeros(1, 3)


def leaves():
    raise SystemExit(3)


number = 5
ready = Net()
ready.image_size = (1, 2, 3)
"""

LAYER = "        self.layer = nn.Linear(width, 2)"


def line(text: str) -> str:
    """Where a line of the file stands, as the errors say it."""
    return f"nets.py:{NETS.splitlines().index(text) + 1}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "sibling.py").write_text("WIDTH = 3\n")
    (tmp_path / "broken.py").write_text("import torch\n\nx = = 3\n")
    (tmp_path / "failing.py").write_text("def make():\n    pass\n\n\nundefined_name\n")
    (tmp_path / "lacking.py").write_text("import a_package_that_is_not_there\n")
    package = tmp_path / "mypack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(NETS.replace("from sibling import WIDTH", "WIDTH = 3"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mypack", "mypack.net", "sibling"):
        sys.modules.pop(name, None)


def test_zoo_name_gives_the_trained_model_and_its_images() -> None:
    assert "vit_digits" in zoo_names()
    assert zoo_names() == tuple(sorted(zoo_names()))
    workload = resolve_model("vit_digits")
    assert workload.name == "vit_digits"
    assert not workload.module.training
    assert [tuple(tensor.shape) for tensor in workload.example_inputs] == [(1, 1, 8, 8)]
    assert workload.dataset is not None
    assert workload.dataset.name == "digits"
    assert float(workload.module.get_parameter("cls_token").detach().abs().sum()) > 0


@pytest.mark.parametrize("place", ["nets.py", "{folder}/nets.py", "mypack.net"])
def test_factories_by_file_and_by_module(folder: Path, place: str) -> None:
    path = list(sys.path)
    place = place.format(folder=folder)
    one = resolve_model(f"{place}:with_tensor")
    assert one.name == "with_tensor"
    assert one.dataset is None
    assert [tuple(tensor.shape) for tensor in one.example_inputs] == [(1, 3)]
    two = resolve_model(f"{place}:with_list")
    assert [tuple(tensor.shape) for tensor in two.example_inputs] == [(1, 3), (1, 4)]
    assert isinstance(two.module, nn.Module)
    assert not two.module.training
    assert sys.path == path


def test_inputs_from_what_the_module_states(folder: Path) -> None:
    shapes = {
        name: tuple(resolve_model(f"nets.py:{name}").example_inputs[0].shape)
        for name in ("Stated", "Configured", "ready")
    }
    assert shapes == {"Stated": (1, 5, 12, 20), "Configured": (1, 4, 16, 16), "ready": (1, 1, 2, 3)}
    assert torch.equal(resolve_model("nets.py:ready").example_inputs[0], torch.zeros(1, 1, 2, 3))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("vit_digit", "unknown model 'vit_digit', did you mean 'vit_digits'"),
        ("", "unknown model '', known: "),
        ("mypack", "unknown model 'mypack' (the folder of that name holds no config.json), "),
        ("nets.py", "expected file.py:factory, got 'nets.py' without a factory"),
        ("nets.py:", "expected file.py:factory or package.module:factory, got 'nets.py:'"),
        (":make", "expected file.py:factory or package.module:factory, got ':make'"),
        ("none.py:make", "expected a Python file, found none at none.py"),
        ("no.such.module:make", "expected a Python module, found none called 'no.such.module'"),
        ("..x:make", "expected a Python module, found none called '..x'"),
        (
            "nets.py:with_tensors",
            "nets.py has no factory 'with_tensors', did you mean 'with_tensor'",
        ),
        ("mypack.net:zzz", "mypack.net has no factory 'zzz', known: Configured, Net, Stated"),
        ("broken.py:make", "broken.py cannot be loaded (broken.py:3): SyntaxError: invalid syntax"),
        ("failing.py:make", "failing.py cannot be loaded (failing.py:5): NameError: name 'undefi"),
        (
            "lacking.py:make",
            "lacking.py cannot be loaded (lacking.py:1): ModuleNotFoundError: No module named",
        ),
        ("nets.py:raises", f"{line('def raises():')}: raises fails ({line(LAYER)}): TypeError: "),
        (
            "nets.py:leaves",
            f"{line('def leaves():')}: leaves fails ({line('    raise SystemExit(3)')}): "
            "SystemExit: 3",
        ),
        (
            "nets.py:needs",
            f"{line('def needs(width, *, depth):')}: "
            "expected needs to take no arguments, it needs width, depth",
        ),
        (
            "nets.py:nonsense",
            f"{line('def nonsense():')}: expected nonsense to return a torch.nn.Module "
            "or (module, example inputs), got tuple of int, int",
        ),
        ("nets.py:text_inputs", "got tuple of Net, str"),
        (
            "nets.py:number",
            "nets.py: expected number to be a function that returns a module, got int",
        ),
        ("nets.py:infinite", "parameter layer.weight holds NaN or infinite values"),
        (
            "nets.py:without_inputs",
            f"{line('def without_inputs():')}: without_inputs gives no example inputs "
            "and Net states "
            "no image size (image_size, img_size, input_size); "
            "return them too: return module, torch.zeros(",
        ),
    ],
)
def test_mistakes_give_one_sentence(folder: Path, spec: str, text: str) -> None:
    path = list(sys.path)
    with pytest.raises(VitruviusError) as raised:
        resolve_model(spec)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sys.path == path
