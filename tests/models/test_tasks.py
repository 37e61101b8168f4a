"""Models for several tasks: one graph and one integer model, of which each task has own gates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitruvius.errors import VitruviusError
from vitruvius.models.equalisation import equalise
from vitruvius.models.graph import check, execute
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.tasks import for_task, graphs_of, merged, trace_tasks
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import Experts, VisionTransformer, VisionTransformerConfig

TASKS = 3
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def module() -> VisionTransformer:
    torch.manual_seed(3)
    config = VisionTransformerConfig(
        image_size=8, patch_size=2, channels=1, classes=0, dim=24, depth=3, heads=2, mlp_ratio=2,
        final_norm=False,
        experts=Experts(count=5, top_k=2, hidden_ratio=1, every=1, tasks=TASKS),
    )  # fmt: skip
    made = VisionTransformer(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            # channels of very different size, so that equalising them does something
            if "norm" in name:
                parameter.copy_(torch.rand(parameter.shape) ** 4 * 5 + 0.05)
            elif "gates" in name:
                parameter.normal_(0, 0.5)
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def graph(module):
    return trace_tasks(module, (torch.zeros(1, *SHAPE),), name="three")


@pytest.fixture(scope="module")
def model(graph, images) -> IntegerModel:
    return quantize(graph, images)


def of_module(module: VisionTransformer, images: Tensor, task: int) -> Tensor:
    before = module.task
    module.task = task
    with torch.no_grad():
        result: Tensor = module(images)
    module.task = before
    return result


def apart(got: Tensor, wanted: Tensor) -> float:
    """Relative size of the difference."""
    return float((got - wanted).norm() / wanted.norm())


def test_one_graph_runs_every_task_as_the_module_does(module, graph, images) -> None:
    check(graph)
    assert len(graph.tasks) == TASKS - 1
    outputs = []
    for task, view in enumerate(graphs_of(graph)):
        check(view)
        outputs.append(execute(view, images))
        assert apart(outputs[-1], of_module(module, images, task)) < 1e-5
    assert apart(outputs[0], outputs[1]) > 0.01
    assert module.task == 0
    assert apart(execute(graph, images), outputs[0]) == 0


def test_equalising_reaches_the_gates_of_every_task(module, graph, images) -> None:
    """Catches a factor that is folded into the first task's gates alone."""
    even, done = equalise(graph, images, QuantizationOptions())
    gated = {region.source for region in graph.mixtures}
    assert gated & {item.name for item in done}
    for task in range(TASKS):
        assert apart(execute(for_task(even, task), images), of_module(module, images, task)) < 1e-4


def test_every_task_is_kept_by_one_integer_model(module, model, images, tmp_path: Path) -> None:
    """The routing of a token may change where two experts are nearly equal, so outputs are compared
    with those of the other tasks as a yardstick.
    """
    path = tmp_path / "three.safetensors"
    model.save(path)
    kept = IntegerModel.load(path)
    assert model.tasks == kept.tasks == TASKS
    wanted = [of_module(module, images, task) for task in range(TASKS)]
    for task in range(TASKS):
        got = model.for_task(task).logits(images)
        assert torch.equal(kept.for_task(task).logits(images), got)
        errors = [apart(got, other.double()) for other in wanted]
        assert errors[task] < 0.08
        assert errors[task] < 0.5 * min(errors[:task] + errors[task + 1 :])
    assert torch.equal(model.run(images), model.for_task(0).run(images))
    assert model.for_task(1).tasks == 1


def test_only_gates_have_tensors_of_a_task(model) -> None:
    own = {operator.name for operator in model.operators if operator.tasks > 1}
    gates = {item.inputs[0] for item in model.operators if item.kind == "Gate"}
    assert own == gates
    for operator in model.operators:
        assert operator.tasks in (1, TASKS)


def test_a_gate_of_any_task_that_breaks_a_bound_is_refused(model) -> None:
    operator = next(item for item in model.operators if item.tasks > 1)
    tensors = dict(model.tensors)
    key = operator.tensors["bias@2"]
    tensors[key] = torch.full_like(tensors[key], (1 << 31) - 1)
    with pytest.raises(VitruviusError, match=f"{operator.name}: .* can reach"):
        IntegerModel(model.name, model.operators, tensors)


def test_a_task_without_a_gate_is_refused(model, graph, images) -> None:
    for task in (-1, TASKS):
        with pytest.raises(VitruviusError, match=f"expected a task of 0 to 2, got {task}"):
            model.for_task(task)
    single = quantize(for_task(graph, 1), images[:4])
    assert single.tasks == 1
    with pytest.raises(VitruviusError, match="expected a task of 0 to 0, got 1"):
        single.for_task(1)


class TwoHeads(nn.Module):
    """Tasks that differ in a layer that is no gate."""

    tasks = 2

    def __init__(self) -> None:
        super().__init__()
        self.task = 0
        self.heads = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads[self.task](x)
        return out


class Deeper(nn.Module):
    """The second task has a layer more."""

    tasks = 2

    def __init__(self) -> None:
        super().__init__()
        self.task = 0
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x)) if self.task else self.one(x)
        return out


@pytest.mark.parametrize("form", [TwoHeads, Deeper])
def test_tasks_that_differ_in_more_than_gates_are_refused(form) -> None:
    module = form().eval()
    with pytest.raises(VitruviusError, match=r"task 1 differs from task 0 in more than its gates"):
        trace_tasks(module, (torch.zeros(1, 4),), name="other")
    assert module.task == 0


def test_a_module_without_tasks_is_traced_as_it_is() -> None:
    inputs = (torch.zeros(1, 4),)
    module = nn.Linear(4, 2).eval()
    graph = trace_tasks(module, inputs, name="plain")
    assert graph.tasks == ()
    assert [item.name for item in graph.operators()] == [
        item.name for item in trace(module, inputs, name="plain").operators()
    ]
    assert merged([graph]).tasks == ()
