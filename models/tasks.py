"""Models for several tasks: one graph, of which each task has gates of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import VitruviusError
from .graph import Graph, Operator
from .trace import trace

__all__ = ["for_task", "graphs_of", "merged", "trace_tasks"]


def trace_tasks(module: nn.Module, inputs: Sequence[Tensor], *, name: str) -> Graph:
    """The graph of ``module`` with the gates of all its tasks.

    A module for several tasks says how many in ``tasks`` and takes the one to run in ``task``; it
    is traced once for each, and left at the task that it had. Any other module is traced as it is.

    Raises as `trace` does, and VitruviusError if tasks differ in more than the weights of gates.
    """
    tasks = getattr(module, "tasks", 1)
    if not isinstance(tasks, int) or tasks < 2 or not hasattr(module, "task"):
        return trace(module, inputs, name=name)
    before: object = module.task
    graphs = []
    try:
        for task in range(tasks):
            setattr(module, "task", task)  # noqa: B010 - no module of torch's has one
            graphs.append(trace(module, inputs, name=name))
    finally:
        setattr(module, "task", before)  # noqa: B010
    return merged(graphs)


def merged(graphs: Sequence[Graph]) -> Graph:
    """The first of ``graphs``, one for each task, with the gates' weights of the others.

    Raises VitruviusError naming the first operator in which tasks differ otherwise.
    """
    first, *others = graphs
    gates = {region.gate for region in first.mixtures}
    tensors = dict(first.tensors)
    tasks = []
    for task, graph in enumerate(others, 1):
        instead: dict[str, str] = {}
        for key, tensor in _differences(first, graph, task, gates):
            name = f"{key} of task {task}"
            instead[key] = name
            tensors[name] = tensor
        tasks.append(instead)
    return Graph(
        first.name,
        first.operators(),
        tensors,
        regions=first.regions,
        mixtures=first.mixtures,
        unmapped=first.unmapped,
        tasks=tasks,
        batched=first.batched,
    )


def graphs_of(graph: Graph) -> list[Graph]:
    """The graph of each task; of a model with one task, ``graph`` itself."""
    return [for_task(graph, task) for task in range(len(graph.tasks) + 1)]


def for_task(graph: Graph, task: int) -> Graph:
    """The graph with the gates of ``task`` alone; ``graph`` itself if it has no other."""
    if not graph.tasks:
        return graph
    instead = graph.tasks[task - 1] if task else {}
    operators = [
        replace(item, tensors={role: instead.get(key, key) for role, key in item.tensors.items()})
        for item in graph.operators()
    ]
    used = {key for item in operators for key in item.tensors.values()}
    return Graph(
        graph.name,
        operators,
        {key: tensor for key, tensor in graph.tensors.items() if key in used},
        regions=graph.regions,
        mixtures=graph.mixtures,
        unmapped=graph.unmapped,
        batched=graph.batched,
    )


def _differences(
    first: Graph, other: Graph, task: int, gates: set[str]
) -> Iterator[tuple[str, Tensor]]:
    """(key in ``first``, tensor in ``other``) of each gate's weights that differ."""
    ours, theirs = first.operators(), other.operators()
    called = {there.name: here.name for here, there in zip(ours, theirs, strict=False)}
    for here, there in zip(ours, theirs, strict=False):
        inputs = tuple(called.get(name, name) for name in there.inputs)
        if not _alike(here, replace(there, inputs=inputs)):
            raise VitruviusError(
                f"{first.name}: task {task} differs from task 0 in more than its gates: "
                f"{here.name} ({here.source or 'no source'}) is {here.kind} "
                f"{list(here.output.shape)} in one, {there.kind} {list(there.output.shape)} "
                "in the other"
            )
        for role, key in here.tensors.items():
            tensor = other.tensors[there.tensors[role]]
            if torch.equal(tensor, first.tensors[key]):
                continue
            if here.name not in gates:
                raise VitruviusError(
                    f"{first.name}: task {task} differs from task 0 in more than its gates: the "
                    f"{role} of {here.name} ({here.source or 'no source'}) is another"
                )
            yield key, tensor
    if len(ours) != len(theirs):
        raise VitruviusError(
            f"{first.name}: task {task} has {len(theirs)} operators, task 0 has {len(ours)}; "
            "expected tasks that differ in the weights of gates only"
        )


def _alike(here: Operator, there: Operator) -> bool:
    return (
        (here.kind, here.inputs, here.output) == (there.kind, there.inputs, there.output)
        and dict(here.attributes) == dict(there.attributes)
        and here.tensors.keys() == there.tensors.keys()
    )
