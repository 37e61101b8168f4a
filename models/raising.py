"""From one exported ATen graph to operators: the machinery that the rewrite rules run in.

The raiser walks the graph, does what depends on parameters only, applies the rule of every other
call, and keeps what has no rule as Host. ``Raiser.add`` names operators and works out their shapes.
"""

from __future__ import annotations

import json
import operator as python_operator
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ..errors import VitruviusError
from .evaluate import evaluate_kind, multiply_accumulates
from .graph import Attribute, Operator, TensorSpec, Unmapped
from .rewrite import RULES, Call, NoRuleError, Pieces, Ref, Value, Weight, symbolic

__all__ = ["RANDOM", "Raiser"]

RANDOM = "it draws random numbers"

_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_RESHAPES = ("aten.reshape.default", "aten.view.default")


class Raiser:
    """Builds operators from an exported program by applying the registered rules node by node.

    After ``run``: ``operators`` in order, ``tensors`` by key (used ones only), ``unmapped``.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.values: dict[Node, Value] = {}
        self.operators: dict[str, Operator] = {}
        self.unmapped: list[Unmapped] = []
        self._program = program
        self._held: dict[str, Tensor] = {}
        self._constants: dict[str, Ref] = {}
        self._shared: dict[str, int] = {}
        self._counted: set[str] = set()
        self._inputs: list[Ref] = []
        self._path = ""
        self._owner = ""
        self._source = ""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that operators name, by key."""
        used = {key for op in self.operators.values() for key in op.tensors.values()}
        return {key: tensor for key, tensor in self._held.items() if key in used}

    def run(self) -> None:
        """Raises every node that leads to a tensor the user gets back.

        Raises ``VitruviusError`` with the user's line for what can be no operator at all, and when
        an output depends on a buffer that the forward changes.
        """
        signature = self._program.graph_signature
        nodes = {node.name: node for node in self._program.graph.nodes}
        wanted = [
            name
            for name in signature.user_outputs
            if isinstance(name, str) and isinstance(nodes[name].meta.get("val"), Tensor)
        ]
        alive = _ancestors(nodes[name] for name in wanted)
        self._refuse_state(alive)
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function" and node in alive:
                self._locate(node)
                self.values[node] = self._raise(node)
        self._path, self._owner, self._source = "", "", ""
        for name in wanted:
            operand = self.as_operand(self.values[nodes[name]])
            self.add("Output", [operand], label="output")

    def add(
        self,
        kind: str,
        inputs: Sequence[Ref],
        *,
        label: str = "",
        attributes: Mapping[str, Attribute] | None = None,
        weights: Mapping[str, Weight] | None = None,
        output: TensorSpec | None = None,
    ) -> Ref:
        """Adds one operator and returns its output; its shape follows from the kind unless
        ``output`` is given.
        """
        attributes, weights = dict(attributes or {}), dict(weights or {})
        tensors = {role: self._held[weight.key] for role, weight in weights.items()}
        specs = [self.operators[ref.name].output for ref in inputs]
        if output is None:
            meta = {role: tensor.to("meta") for role, tensor in tensors.items()}
            result = evaluate_kind(kind, [spec.meta() for spec in specs], meta, attributes)
            output = self.spec(result)
        weight = tuple(tensors["weight"].shape) if "weight" in tensors else None
        name = self._unique(self._named(kind, label, weights))
        self.operators[name] = Operator(
            name=name,
            kind=kind,
            path=self._path,
            source=self._source,
            inputs=tuple(ref.name for ref in inputs),
            output=output,
            attributes=attributes,
            tensors={role: weight.key for role, weight in weights.items()},
            macs=multiply_accumulates(kind, [spec.shape for spec in specs], weight, output.shape),
            params=self._params(weights),
        )
        return Ref(name)

    def _params(self, weights: Mapping[str, Weight]) -> int:
        """Trained numbers of an operator; those that another one has too count there."""
        own = {held.key for held in weights.values() if held.parameter} - self._counted
        self._counted |= own
        return sum(self._held[key].numel() for key in own)

    def hold(self, key: str, tensor: Tensor, *, parameter: bool) -> Weight:
        """Keeps a tensor made at trace time under ``key``, another one of that key with a number
        behind it.
        """
        # contiguous, because a later view may be folded on it after a copy has vanished
        kept, name, count = tensor.detach().contiguous(), key, 0
        while name in self._held and not (kept.is_meta or _same(self._held[name], kept)):
            count += 1
            name = f"{key}.{count}"
        self._held[name] = kept
        return Weight(name, parameter)

    def tensor(self, weight: Weight) -> Tensor:
        """The values of a tensor known at trace time."""
        return self._held[weight.key]

    def scalar(self, value: float) -> Ref:
        """A number as a Constant operator of no axes."""
        held = self.hold(f"scalar.{value!r}", torch.tensor(value), parameter=False)
        if held.key not in self._constants:
            self._constants[held.key] = self.add(
                "Constant",
                [],
                label="scalar",
                attributes={"number": value},
                weights={"value": held},
            )
        return self._constants[held.key]

    def as_operand(self, value: Value) -> Ref:
        """A value as an operator's output: a tensor known at trace time becomes one Constant
        operator, repeated for each image where the batch shares one of its axes.
        """
        if isinstance(value, Ref):
            return value
        if value is None:
            raise NoRuleError("it reads a number that is computed from the batch or the input")
        if not isinstance(value, Weight):
            raise NoRuleError("it reads several results as if they were one tensor")
        if value.key not in self._constants:
            path = self._path
            if value.key in self._program.state_dict:
                self._path = value.key.rpartition(".")[0]
            self._constants[value.key] = self.add(
                "Constant", [], label=value.key, weights={"value": value}
            )
            self._path = path
            if value.key in self._shared and self._inputs:
                attributes: dict[str, Attribute] = {"dim": self._shared[value.key]}
                operands = [self._constants[value.key], self._inputs[0]]
                self._constants[value.key] = self.add(
                    "RepeatBatch", operands, attributes=attributes, label="repeat"
                )
        return self._constants[value.key]

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """The shape of an operator's output for one image."""
        return self.operators[ref.name].output.shape

    def spec(self, value: Tensor) -> TensorSpec:
        """Shape for one image and element type of a (fake) tensor."""
        shape = tuple(self.concrete(size) for size in value.shape)
        return TensorSpec(shape, str(value.dtype).removeprefix("torch."))

    def concrete(self, value: object) -> int:
        """A size with batch 1: plain numbers, symbolic ones, and nodes that hold one."""
        if isinstance(value, Node):
            value = value.meta["val"]
        if isinstance(value, (torch.SymFloat, torch.SymBool)) or free_unbacked_symbols(value):
            raise NoRuleError("it depends on a value of the input, not only on shapes")
        if isinstance(value, torch.SymInt):
            expression = value.node.expr
            return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))
        if isinstance(value, int):
            return value
        raise NoRuleError(f"a size is {value!r}, expected a whole number")

    def _placeholder(self, node: Node) -> None:
        signature = self._program.graph_signature
        for keys, parameter in (
            (signature.inputs_to_parameters, True),
            (signature.inputs_to_buffers, False),
            (signature.inputs_to_lifted_tensor_constants, False),
        ):
            if key := keys.get(node.name):
                held = self._program.state_dict.get(key, self._program.constants.get(key))
                self.values[node] = self.hold(key, cast(Tensor, held), parameter=parameter)
                return
        value = node.meta["val"]
        if isinstance(value, Tensor):
            self._inputs.append(self.add("Input", [], label=node.name, output=self.spec(value)))
            self.values[node] = self._inputs[-1]
        else:
            self.values[node] = None

    def _raise(self, node: Node) -> Value:
        if node.target is python_operator.getitem:
            source, place = self.values[cast(Node, node.args[0])], cast(int, node.args[1])
            if not isinstance(source, Pieces):
                raise TypeError(
                    f"{node.args[0]} has one result, but {node.name} picks one of several"
                )
            try:
                return source.makers[place]()
            except NoRuleError as error:
                raise self._hopeless(str(node.args[0]), error) from error
        if not isinstance(node.target, torch._ops.OpOverload):
            return None  # arithmetic on sizes, read through node.meta where it matters
        if not isinstance(node.meta.get("val"), (Tensor, list, tuple)):
            return None
        call = Call(node, self)
        constant = self._folded(call)
        if constant is not None:
            return constant
        try:
            if call.target not in RULES:
                raise NoRuleError(RANDOM if _random(call) else "no rule")
            return RULES[call.target](call, self)
        except NoRuleError as error:
            reason = str(error)
        try:
            return self._host(call, reason)
        except NoRuleError as error:
            raise self._hopeless(call.target, error) from error

    def _hopeless(self, target: str, error: NoRuleError) -> VitruviusError:
        """What is neither an operator of the graph nor one of PyTorch on tensors of fixed shape."""
        place = f"{self._path or 'the root module'} ({self._source or 'unknown line'})"
        return VitruviusError(f"{target} at {place} cannot be in a graph: {error}")

    def _refuse_state(self, alive: set[Node]) -> None:
        signature = self._program.graph_signature
        changed = set(signature.buffers_to_mutate.values())
        read = [
            key
            for node in self._program.graph.nodes
            if node in alive and (key := signature.inputs_to_buffers.get(node.name)) in changed
        ]
        if read:
            raise VitruviusError(
                f"the forward changes buffer {', '.join(map(str, read))} and its output depends on "
                "it; a graph keeps nothing from one call to the next"
            )

    def _folded(self, call: Call) -> Value:
        """Calls that read parameters and numbers only are done now; the batch counts as 1 and
        broadcasts.
        """
        reads = [self.values[node] for node in call.node.all_input_nodes]
        if _random(call) or any(isinstance(value, (Ref, Pieces)) for value in reads):
            return None
        arguments = {name: self._plain(value) for name, value in call.arguments().items()}
        with torch.no_grad():
            result = cast("torch._ops.OpOverload", call.node.target)(**arguments)
        parameter = any(isinstance(value, Weight) and value.parameter for value in reads)
        key = f"{self._path}.{call.node.name}" if self._path else call.node.name
        if call.target in _RESHAPES and len(reads) == 1 and isinstance(reads[0], Weight):
            key = reads[0].key.removesuffix(
                ".folded"
            )  # a parameter in another shape keeps its name
        if isinstance(result, Tensor):
            shared = _shared_axis(call.node.meta["val"], result)
            for value in reads:
                if not isinstance(value, Weight) or self._shared.get(value.key) != shared:
                    continue
                if _same(self.tensor(value), result):
                    return value
            if shared is not None:
                self._shared[f"{key}.folded"] = shared
            return self.hold(f"{key}.folded", result, parameter=parameter)
        held = [
            self.hold(f"{key}.folded.{place}", tensor, parameter=parameter)
            for place, tensor in enumerate(result)
        ]
        return Pieces(tuple(partial(_itself, weight) for weight in held))

    def _plain(self, value: object) -> object:
        if isinstance(value, Node):
            raised = self.values[value]
            return self.tensor(raised) if isinstance(raised, Weight) else self.concrete(value)
        if isinstance(value, torch.SymInt):
            return self.concrete(value)
        if isinstance(value, (list, tuple)):
            return [self._plain(item) for item in value]
        return value

    def _host(self, call: Call, reason: str) -> Value:
        """Keeps a call as Host operators, one per result that is read, and notes why."""
        operands: list[Ref] = []

        def coded(value: object) -> object:
            if isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor):
                operands.append(self.as_operand(self.values[value]))
                return {"operand": len(operands) - 1}
            if isinstance(value, (Node, torch.SymInt)):
                return self.concrete(value)
            if isinstance(value, (list, tuple)):
                return [coded(item) for item in value]
            if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
                return {"torch": str(value).removeprefix("torch.")}
            return None if isinstance(value, torch.device) else value

        arguments = json.dumps({name: coded(value) for name, value in call.arguments().items()})
        result = call.node.meta["val"]
        label = call.target.split(".")[1]
        path, owner, source = self._path, self._owner, self._source
        noted: list[str] = []

        def make(place: int, value: Tensor) -> Ref:
            self._path, self._owner, self._source = path, owner, source
            attributes: dict[str, Attribute] = {
                "target": call.target,
                "arguments": arguments,
                "result": place,
            }
            ref = self.add(
                "Host", operands, label=label, attributes=attributes, output=self.spec(value)
            )
            if not noted:
                noted.append(ref.name)
                self.unmapped.append(Unmapped(ref.name, call.target, path, source, reason))
            return ref

        if isinstance(result, Tensor):
            return make(0, result)
        return Pieces(tuple(partial(make, place, value) for place, value in enumerate(result)))

    def _locate(self, node: Node) -> None:
        """Module path, the kind of module, and the user's source line of the node about to be
        raised.
        """
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        self._path, module = (str(stack[-1][0]), str(stack[-1][1])) if stack else ("", "")
        self._owner = module.rpartition(".")[2] if module.startswith("torch.nn.modules.") else ""
        frames = _FRAME.findall(str(node.meta.get("stack_trace") or ""))
        own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or [("", "")]
        self._source = f"{Path(own[-1][0]).name}:{own[-1][1]}" if own[-1][0] else ""

    def _named(self, kind: str, label: str, weights: Mapping[str, Weight]) -> str:
        """An operator is called like its module where it is the module's work, else module path and
        label.
        """
        if kind in ("Input", "Output", "Constant"):
            return label
        if "weight" in weights and weights["weight"].parameter:
            key = weights["weight"].key.removesuffix(".folded")
            # a weight of the root module itself has no module name to give
            return kind.lower() if key == "weight" else re.sub(r"[._]weight$", "", key)
        if self._owner.lower() == kind.lower() and self._path:
            return self._path
        label = label or kind.lower()
        return f"{self._path}.{label}" if self._path else label

    def _unique(self, name: str) -> str:
        if name not in self.operators:
            return name
        count = 1
        while f"{name}_{count}" in self.operators:
            count += 1
        return f"{name}_{count}"


def _itself(weight: Weight) -> Value:
    return weight


def _random(call: Call) -> bool:
    target = cast("torch._ops.OpOverload", call.node.target)
    return torch.Tag.nondeterministic_seeded in target.tags


def _shared_axis(value: Tensor, folded: Tensor) -> int | None:
    """The axis in which the batch sits beside something else, windows or heads, so that the value
    for one image does not broadcast to a batch.
    """
    for axis, size in enumerate(value.shape):
        if symbolic(size) and folded.shape[axis] > 1:
            return axis
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    if one.is_meta or other.is_meta:
        places = [(item.untyped_storage()._cdata, item.storage_offset()) for item in (one, other)]
        return alike and places[0] == places[1] and one.stride() == other.stride()
    return alike and torch.equal(one, other)


def _ancestors(nodes: Iterator[Node]) -> set[Node]:
    """The nodes and everything they read, directly or not."""
    found: set[Node] = set()
    open_nodes = list(nodes)
    while open_nodes:
        node = open_nodes.pop()
        if node not in found:
            found.add(node)
            open_nodes.extend(node.all_input_nodes)
    return found
