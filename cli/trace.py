"""``vitruvius models`` and ``vitruvius trace``: what is computed."""

from __future__ import annotations

from .options import JsonFile, ModelName, Unmapped, UnmappedPolicy, Weights
from .output import Output

__all__ = ["models", "trace"]


def models(json: JsonFile = None) -> None:
    """List the models of the zoo.

    Any other torch module works too: give it as file.py:factory wherever a verb takes MODEL.
    """
    output = Output(json)
    from ..models.zoo import ZOO
    from ..reports.table import zoo_table

    entries = [ZOO[name] for name in sorted(ZOO)]
    output.console.print(zoo_table(entries))
    output.write_json(
        [
            {
                "name": entry.name,
                "summary": entry.summary,
                "input_shape": list(entry.input_shape),
                "weights": entry.weights is not None,
                "dataset": entry.dataset is not None,
            }
            for entry in entries
        ]
    )


def trace(
    model: ModelName,
    weights: Weights = None,
    unmapped: UnmappedPolicy = Unmapped.ERROR,
    json: JsonFile = None,
) -> None:
    """Show a model's operators: kind, shape, multiply-accumulates, parameters.

    The module is exported with torch.export and raised to a graph, which is compared with the
    module on random inputs. Operators without a rule are listed with their module path and source
    line; '--unmapped host' keeps them in the graph, on the host.

    Example: vitruvius trace vit_digits --json trace.json
    """
    output = Output(json)
    from ..reports.table import operators_table, unmapped_table
    from .workload import load_workload, trace_workload

    graph = trace_workload(load_workload(model, weights), unmapped.value)
    operators = graph.operators()
    output.console.print(operators_table(graph))
    if graph.unmapped:
        output.console.print(unmapped_table(graph.unmapped))
    output.write_json(
        {
            "model": graph.name,
            "operators": [
                {
                    "name": item.name,
                    "kind": item.kind,
                    "path": item.path,
                    "source": item.source,
                    "shape": list(item.output.shape),
                    "macs": item.macs,
                    "params": item.params,
                }
                for item in operators
            ],
            "total": {
                "macs": sum(item.macs for item in operators),
                "params": sum(item.params for item in operators),
            },
            "attention": [
                {
                    "scores": region.scores,
                    "softmax": region.softmax,
                    "apply": region.apply,
                    "heads": region.heads,
                    "tokens": region.tokens,
                    "head_dim": region.head_dim,
                }
                for region in graph.regions
            ],
            "unmapped": [
                {
                    "name": item.name,
                    "target": item.target,
                    "path": item.path,
                    "source": item.source,
                    "reason": item.reason,
                }
                for item in graph.unmapped
            ],
        }
    )
