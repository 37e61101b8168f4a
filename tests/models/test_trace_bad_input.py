"""What cannot be traced: one sentence that names the line, the tensor or the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vitruvius.cli.main import app
from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Operator, execute, execute_all
from vitruvius.models.trace import TraceError, UnmappedError, trace

IMAGE = (torch.rand(1, 4, generator=torch.Generator().manual_seed(5)),)


def line_of(function: Callable[..., object], text: str) -> str:
    """Where ``text`` stands inside ``function``, as "file.py:12"."""
    code = function.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    for number in range(code.co_firstlineno, len(lines) + 1):
        if text in lines[number - 1]:
            return f"{Path(code.co_filename).name}:{number}"
    raise AssertionError(text)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().max() * 3)):
            x = x * 2
        return x


class Skip(nn.Module):
    """The branch is in a part of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Branch()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x + 1)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        (Branch(), line_of(Branch.forward, "if x.sum()")),
        (Skip(), line_of(Branch.forward, "if x.sum()")),
        (Loop(), line_of(Loop.forward, "for _ in range")),
    ],
    ids=["branch", "branch in a part", "loop"],
)
def test_control_flow_on_values_names_its_line(module: nn.Module, place: str) -> None:
    with pytest.raises(TraceError) as raised:
        trace(module, IMAGE, name="model")
    text = str(raised.value)
    assert text.startswith("model: ")
    assert text.count("\n") == 0
    assert place in text


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.max().item()


class Nonzero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten().nonzero().sum() + x


@pytest.mark.parametrize("unmapped", ["error", "host"])
@pytest.mark.parametrize(
    ("module", "place"),
    [
        (ByValue(), line_of(ByValue.forward, "x.max()")),
        (Nonzero(), line_of(Nonzero.forward, "nonzero()")),
    ],
    ids=["item", "nonzero"],
)
def test_sizes_and_numbers_from_values_name_their_line(
    module: nn.Module, place: str, unmapped: str
) -> None:
    with pytest.raises(VitruviusError) as raised:
        trace(module, IMAGE, name="model", unmapped=unmapped)
    text = str(raised.value)
    assert text.startswith("model: ")
    assert place in text
    assert "it depends on a value of the input, not only on shapes" in text


class Pinned(nn.Module):
    """A batch of one, in its own shapes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(1, 2, 2).transpose(1, 2).reshape(1, 4) * 2


def test_a_pinned_batch_is_run_image_by_image() -> None:
    graph = trace(Pinned(), IMAGE, name="pinned")
    assert not graph.batched
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(5))
    seen: list[Tensor] = []

    def keep(operator: Operator, value: Tensor) -> None:
        if operator.kind == "Output":
            seen.append(value)

    got = execute(graph, x, observe=keep)
    expected = torch.cat([Pinned()(image[None]) for image in x])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert len(seen) == 1  # an observer sees the batch, not its pieces
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=0)
    assert trace(nn.Linear(4, 2), IMAGE, name="free").batched


def test_a_batch_of_examples_that_is_pinned_is_traced_as_given() -> None:
    class Four(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(4, 2, 2).transpose(1, 2).flatten(1)

    graph = trace(Four(), (torch.zeros(4, 4),), name="four")
    assert graph.operator(graph.inputs[0]).output.shape == (4, 4)
    assert execute(graph, torch.ones(8, 4)).shape == (8, 4)
    with pytest.raises(VitruviusError, match="operator reshape"):
        execute(graph, torch.ones(6, 4))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_element_types_are_refused_by_name(kind: str) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[1].to(getattr(torch, kind))
    with pytest.raises(TraceError) as raised:
        trace(module, IMAGE, name="model")
    assert str(raised.value) == (
        f"model: 1.weight expected float32, got {kind}; call module.float()"
    )


def test_meta_tensors_are_refused_by_name() -> None:
    with torch.device("meta"):
        module = nn.Linear(4, 2)
    with pytest.raises(TraceError) as raised:
        trace(module, IMAGE, name="model")
    assert str(raised.value) == "model: weight expected values, got a meta tensor"


def test_inputs_of_the_wrong_shape_say_which_and_where() -> None:
    with pytest.raises(TraceError) as raised:
        trace(nn.Conv2d(3, 4, 2), (torch.zeros(1, 1, 8, 8),), name="model")
    text = str(raised.value)
    assert text.startswith("model: the module fails on its example inputs [1, 1, 8, 8]: ")
    assert "expected input[1, 1, 8, 8] to have 3 channels" in text
    graph = trace(nn.Conv2d(3, 4, 2), (torch.zeros(1, 3, 8, 8),), name="model")
    with pytest.raises(VitruviusError) as raised_later:
        execute(graph, torch.zeros(2, 3, 8, 7))
    assert str(raised_later.value) == (
        "graph model: input input expected shape [1, 3, 8, 8] (the first axis is the batch), "
        "got [2, 3, 8, 7]"
    )


class Many(nn.Module):
    """A dictionary with tensors, None and numbers, as dataclass outputs have."""

    def forward(self, x: Tensor) -> dict[str, object]:
        return {"twice": x * 2, "nothing": None, "count": 3, "batch": x.shape[0], "more": [x + 1]}


def test_every_tensor_of_the_output_is_one_and_nothing_else_is() -> None:
    graph = trace(Many(), IMAGE, name="many")
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(5))
    first, second = execute_all(graph, x)
    torch.testing.assert_close(first, x * 2)
    torch.testing.assert_close(second, x + 1)


def test_more_winners_than_experts_say_the_line_and_what_torch_means() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(-1).topk(5, dim=-1).values

    with pytest.raises(TraceError) as raised:
        trace(Gate(), IMAGE, name="model")
    place = line_of(Gate.forward, "topk(5")
    assert str(raised.value) == (
        "model: the module fails on its example inputs [1, 4]: RuntimeError: selected index k out "
        "of range: topk of more values than the axis has, of a gate of more than there are experts "
        f"({place})"
    )


def test_an_output_without_tensors_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> str:
            return str(x.shape)

    with pytest.raises(TraceError) as raised:
        trace(Nothing(), IMAGE, name="model")
    assert str(raised.value) == (
        "model: expected at least one tensor in what the module returns, got str"
    )


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape[1])


def test_random_outputs_name_what_draws_them() -> None:
    place = line_of(Noise.forward, "torch.randn")
    with pytest.raises(UnmappedError) as raised:
        trace(Noise(), IMAGE, name="noise")
    assert str(raised.value).splitlines() == [
        "noise: 1 operator has no rewrite rule:",
        f"  aten.randn.default at the root module ({place}): it draws random numbers",
    ]
    with pytest.raises(TraceError) as raised_later:
        trace(Noise(), IMAGE, name="noise", unmapped="host")
    assert str(raised_later.value) == (
        "noise: the traced graph and the module differ on the same random input; "
        f"is the module's output random? aten.randn.default at {place} draws"
    )


class Counter(nn.Module):
    """Counts its calls in a buffer, which its output reads when ``used``."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.used = used
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls if self.used else x * 2


def test_state_that_reaches_the_output_is_refused_and_left_alone() -> None:
    module = Counter(used=True)
    with pytest.raises(TraceError) as raised:
        trace(module, IMAGE, name="counter")
    assert str(raised.value) == (
        "counter: the forward changes buffer calls and its output depends on it; "
        "a graph keeps nothing from one call to the next"
    )
    assert float(module.calls) == 0.0


def test_state_that_no_output_reads_is_ignored() -> None:
    module = Counter(used=False)
    graph = trace(module, IMAGE, name="counter")
    torch.testing.assert_close(execute(graph, IMAGE[0]), IMAGE[0] * 2)
    assert float(module.calls) == 0.0


def test_an_input_changed_in_place_is_not_the_users() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1).mul_(2)

    x = torch.zeros(1, 4)
    graph = trace(InPlace(), (x,), name="in place")
    assert float(x.abs().max()) == 0.0
    torch.testing.assert_close(execute(graph, x), torch.full((1, 4), 2.0))


def test_modes_of_parts_are_restored() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Linear(4, 4)).train()
    module[0].eval()
    trace(module, IMAGE, name="model")
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return x * 2 if x.sum() > 0 else x", "model.py:5"),
        ("return (x * x.max().item()).half()", "it depends on a value of the input"),
        ("return None", "expected at least one tensor in what the module returns, got NoneType"),
        ("return x.view(3, 5)", "the module fails on its example inputs [1, 4]"),
    ],
)
def test_the_command_says_it_in_a_sentence_and_exits_with_2(
    tmp_path: Path, body: str, text: str
) -> None:
    source = tmp_path / "model.py"
    source.write_text(
        "import torch\n\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        f"        {body}\n\n"
        "def factory():\n"
        "    return Model(), torch.ones(1, 4)\n"
    )
    result = CliRunner().invoke(app, ["trace", f"{source}:factory"])
    written = " ".join((result.output + result.stderr).split())
    assert result.exit_code == 2, written
    assert text in written
    assert "Traceback" not in written
