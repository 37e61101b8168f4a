"""What about a graph operator rules out an integer form, whatever its inputs have become."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

from .graph import Graph, Operator
from .integer.layernorm import MAX_WIDTH
from .mixture import no_mixture

__all__ = ["Refusals"]


class Refusals:
    """Decides for operators of ``graph``; ``kinds`` are those that have an integer form at all.

    ``region_of`` gives the attention that a scores product or a softmax belongs to, ``inside`` the
    names of the operators within mixtures of experts.
    """

    def __init__(self, graph: Graph, kinds: Collection[str]) -> None:
        self._graph = graph
        self._kinds = kinds
        self.region_of = {
            part: region for region in graph.regions for part in (region.scores, region.softmax)
        }
        self._applied = {region.apply: region for region in graph.regions}
        self._unmapped = {item.name: item.reason for item in graph.unmapped}
        self._mixture_parts = {
            part for region in graph.mixtures for part in (region.softmax, region.route)
        }
        self.inside = self._within_mixtures()
        self._checks: dict[str, Callable[[Operator], str]] = {
            "Input": self._input,
            "Output": self._output,
            "Conv2d": self._conv2d,
            "LayerNorm": self._norm,
            "RmsNorm": self._norm,
            "MatMul": self._matmul,
            "Softmax": self._softmax,
            "Gate": self._gate,
            "Mean": self._mean,
            "Mul": self._scale,
            "Div": self._scale,
        }

    def reason(self, operator: Operator) -> str:
        """Why ``operator`` has no integer form; empty where that depends on its inputs."""
        if operator.kind not in self._kinds:
            unmapped = self._unmapped.get(operator.name)
            return f"{operator.kind} has no integer form" + (f" ({unmapped})" if unmapped else "")
        check = self._checks.get(operator.kind)
        return check(operator) if check is not None else ""

    def _within_mixtures(self) -> frozenset[str]:
        """What lies between a mixture's gate and experts on one side and its sum on the other."""
        found: set[str] = set()
        for region in self._graph.mixtures:
            ends = {region.gate, *(last for _, _, last in region.experts)}
            waiting = [region.combine]
            while waiting:
                operator = self._graph.operator(waiting.pop())
                if operator.name in ends or operator.name in found:
                    continue
                found.add(operator.name)
                waiting += operator.inputs
        return frozenset(found)

    def _input(self, operator: Operator) -> str:
        if operator.name != self._graph.inputs[0]:
            return "a second input; an integer model takes one image"
        if len(operator.output.shape) != 4:
            return f"expected an image, got shape {operator.output.shape}"
        return ""

    def _output(self, operator: Operator) -> str:
        if operator.name != self._graph.outputs[0]:
            return "a further output; an integer model gives one tensor"
        return ""

    def _conv2d(self, operator: Operator) -> str:
        kernel = tuple(self._graph.tensors[operator.tensors["weight"]].shape[-2:])
        source = self._graph.operator(operator.inputs[0])
        whole = (
            source.kind == "Input"
            and operator.attributes["stride"] == kernel
            and kernel[0] == kernel[1]
            and not any(operator.attributes["padding"])  # type: ignore[arg-type]
            and operator.attributes["groups"] == 1
        )
        if not whole:
            return (
                "only a patch embedding of the image (stride equal to a square kernel, no padding) "
                "has one"
            )
        height, width = source.output.shape[-2:]
        if height % kernel[0] or width % kernel[0]:
            return f"image {height}x{width} is no multiple of the patch {kernel[0]}"
        return ""

    def _norm(self, operator: Operator) -> str:
        width = operator.output.shape[-1]
        if operator.attributes["normalized"] != width:
            return "normalises something other than the last axis"
        if width > MAX_WIDTH:
            return f"normalises {width} features, at most {MAX_WIDTH}"
        return ""

    def _matmul(self, operator: Operator) -> str:
        region = self.region_of.get(operator.name) or self._applied.get(operator.name)
        if region is None:
            return "product of two activations outside an attention"
        if operator.name != region.apply:
            return ""  # said once, of the product that completes the attention
        if region.windows != 1:
            return f"attention in {region.windows} windows"
        if region.tokens != region.keys:
            return "attention with keys from another sequence"
        return ""

    def _softmax(self, operator: Operator) -> str:
        if operator.name in self.region_of or operator.name in self._mixture_parts:
            return ""
        if any(reader.kind == "Gate" for reader in self._graph.consumers(operator.name)):
            return "softmax for a gate outside a mixture of experts"
        return "softmax outside an attention"

    def _gate(self, operator: Operator) -> str:
        if operator.name in self._mixture_parts:
            return ""
        return f"a gate outside a mixture of experts: {no_mixture(self._graph, operator)}"

    def _mean(self, operator: Operator) -> str:
        shape = self._graph.operator(operator.inputs[0]).output.shape
        axes = operator.attributes["dims"]
        dims = {int(str(dim)) % len(shape) for dim in axes} if isinstance(axes, tuple) else set()
        return "" if dims == {len(shape) - 2} else "averages something other than the tokens"

    def _scale(self, operator: Operator) -> str:
        """Factors in a mixture, or one number."""
        if operator.name in self.inside:
            return ""
        kinds = [
            (self._graph.operator(name).kind, prod(self._graph.operator(name).output.shape))
            for name in operator.inputs
        ]
        if operator.kind == "Div":
            kinds = kinds[1:]
        if ("Constant", 1) in kinds:
            return ""
        word = "product" if operator.kind == "Mul" else "quotient"
        return f"{word} of two tensors, element by element"
