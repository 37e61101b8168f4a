"""Weight files: exact round trips, and one sentence for all that can be wrong with a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.weights import load_into, load_weights, save_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(7)
    return Net()


def test_round_trip_is_exact_and_the_same_bytes_every_time(net: Net, tmp_path: Path) -> None:
    one, two = tmp_path / "new" / "one.safetensors", tmp_path / "two.safetensors"
    metadata = {f"key{number}": str(number) for number in range(20)}
    save_weights(net.state_dict(), one, metadata)
    save_weights(dict(reversed(net.state_dict().items())), two, dict(reversed(metadata.items())))
    assert one.read_bytes() == two.read_bytes()
    other = Net()
    assert load_into(other, one) == metadata
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert [path.name for path in one.parent.iterdir()] == ["one.safetensors"]


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    storage = torch.arange(6.0).reshape(2, 3)
    save_weights({"a": storage.t(), "b": storage[1]}, tmp_path / "w.safetensors", {})
    tensors, _ = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(tensors["a"], storage.t())
    assert torch.equal(tensors["b"], storage[1])


def untouched(net: Net, path: Path, match: str) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(VitruviusError, match=match) as raised:
        load_into(net, path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_wrong_shape_names_the_tensor_and_both_shapes(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**net.state_dict(), "second.weight": torch.zeros(2, 5)}, path)
    untouched(net, path, r"second.weight expected shape \[2, 4\], got \[2, 5\]")


def test_all_problems_come_at_once(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {**net.state_dict(), "extra": torch.zeros(1), "first.bias": torch.zeros(4).half()}
    del tensors["second.bias"]
    save_file(tensors, path)
    untouched(
        net,
        path,
        r"does not fit Net: missing second.bias; unexpected extra; "
        r"first.bias expected float32, got float16",
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(net: Net, tmp_path: Path, bad: float) -> None:
    path = tmp_path / "w.safetensors"
    weight = net.state_dict()["first.weight"].clone()
    weight[1, 2] = bad
    save_file({**net.state_dict(), "first.weight": weight}, path)
    untouched(net, path, "tensor first.weight expected finite values, got 1 NaN or infinite of 12")
    with pytest.raises(VitruviusError, match=r"tensor first.weight expected finite values"):
        save_weights({"first.weight": weight}, tmp_path / "never.safetensors", {})
    assert not (tmp_path / "never.safetensors").exists()


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_file(net: Net, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(net.state_dict(), path, {})
    path.write_bytes(path.read_bytes()[:kept])
    untouched(net, path, "is not a complete safetensors file")


def test_a_pickle_is_refused_and_not_run(net: Net, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps({"first.weight": Payload()}))
    untouched(net, path, "is not a complete safetensors file")
    assert not marker.exists()


def test_missing_file(net: Net, tmp_path: Path) -> None:
    untouched(net, tmp_path / "none.safetensors", "expected a safetensors file, found none at")
    untouched(net, tmp_path, "found none at")


def test_paths_that_cannot_be_written(net: Net, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "w.safetensors", tmp_path / "folder"):
        with pytest.raises(VitruviusError, match="cannot write weights to"):
            save_weights(net.state_dict(), path, {})
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder"]
