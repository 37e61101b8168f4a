"""From an IntegerModel and a Machine to a Program: steps, addresses, memory images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..errors import VitruviusError
from ..models.integer_model import IntegerModel, IntegerOperator
from .instruction import Destination, Instruction, Opcode, Source
from .machine import Machine
from .packing import Packing
from .placement import Arena, Rows, ceil_div
from .program import Boundary, Program, Step, Usage, check
from .refusals import refuse_unknown
from .registers import DebugMemory

__all__ = ["compile_model"]


def compile_model(model: IntegerModel, machine: Machine) -> Program:
    """The Program of ``model`` on ``machine``.

    Raises VitruviusError if the model's operators do not form a pre-norm encoder that the
    accelerator knows (all that it has no step for), or if a buffer is too small (all of them, with
    what is needed).
    """
    refuse_unknown(model)
    compiler = _Compiler(model, machine)
    program = compiler.run()
    short = [usage for usage in program.usage if usage.used > usage.capacity]
    if short:
        raise VitruviusError(
            f"{model.name} does not fit machine '{machine.name}': "
            + "; ".join(
                f"buffers.{usage.buffer} needs {usage.used} {usage.unit}, has {usage.capacity}"
                for usage in short
            )
        )
    check(program)
    return program


class _Compiler:
    def __init__(self, model: IntegerModel, machine: Machine) -> None:
        self.model = model
        self.machine = machine
        self.steps: list[Step] = []
        self.packing = Packing(model, machine)
        self.boundaries: list[Boundary] = []
        self.arena = Arena()
        self.places: dict[str, Rows] = {}
        self.readers = {
            operator.name: [reader for reader in model.operators if operator.name in reader.inputs]
            for operator in model.operators
        }
        self.needs: dict[str, int] = {}
        self.done: set[str] = set()

    def run(self) -> Program:
        handlers: dict[str, Callable[[IntegerOperator], None]] = {
            "Quantize": self._load,
            "Linear": self._linear,
            "Gelu": self._inside,
            "LayerNorm": self._norm,
            "Attention": self._attention,
            "Embed": self._inside,
            "Add": self._inside,
            "Select": self._select,
        }
        operators = self.model.operators
        for operator in operators:
            handlers[operator.kind](operator)
            self.done.add(operator.name)
            for name in list(self.arena.live):
                if all(reader.name in self.done for reader in self.readers[name]):
                    self.arena.free(name)
        last = operators[-1]
        results = last.output[1]
        self._step("store", last.name, Instruction(Opcode.STORE, results=results))
        self._step("end", "", Instruction(Opcode.END))
        image = self.places[operators[0].name]
        features = operators[0].output[1]
        return Program(
            model=self.model,
            machine=self.machine,
            steps=tuple(self.steps),
            weights=self.packing.weights,
            columns=self.packing.columns,
            image_tokens=image.tokens,
            image_words=ceil_div(features, self.machine.depth),
            image_features=features,
            results=results,
            boundaries=tuple(self.boundaries),
            usage=self._usage(results),
        )

    # -- small parts --------------------------------------------------------------------------

    def _step(self, name: str, operator: str, instruction: Instruction, macs: int = 0) -> None:
        self.steps.append(Step(name, operator, instruction, macs))

    def _need(self, buffer: str, amount: int) -> None:
        self.needs[buffer] = max(self.needs.get(buffer, 0), amount)

    def _words(self, rows: int) -> int:
        return rows * self.machine.subwords

    def _place(self, name: str, tokens: int, groups: int, group_features: int) -> Rows:
        pitch = groups * ceil_div(group_features, self.machine.lanes)
        base = self.arena.take(name, tokens * pitch)
        place = Rows(base, pitch, tokens, groups, group_features)
        self.places[name] = place
        return place

    def _boundary(self, operator: str, memory: DebugMemory, place: Rows) -> None:
        words = self._words if memory is not DebugMemory.RESIDUAL else _same
        self.boundaries.append(
            Boundary(
                step=len(self.steps),
                operator=operator,
                memory=memory,
                base=words(place.base),
                pitch=words(place.pitch),
                tokens=place.tokens,
                features=place.groups * place.group_features,
                group=place.group_features,
                group_pitch=words(place.group_pitch),
            )
        )

    def _residual_boundary(self, operator: IntegerOperator) -> None:
        tokens, width = operator.output
        tiles = ceil_div(width, self.machine.cols)
        self._boundary(operator.name, DebugMemory.RESIDUAL, Rows(0, tiles, tokens, 1, width))

    # -- one method per integer operator ----------------------------------------------------

    def _load(self, operator: IntegerOperator) -> None:
        tokens, features = operator.output
        place = self._place(operator.name, tokens, 1, features)
        self._step(
            "load",
            operator.name,
            Instruction(
                Opcode.LOAD,
                tokens=tokens,
                words=ceil_div(features, self.machine.depth),
                a_base=self._words(place.base),
                a_stride=self._words(place.pitch),
            ),
        )

    def _inside(self, operator: IntegerOperator) -> None:
        """Gelu, Embed and Add run in the drain path of the Linear before them."""

    def _linear(self, operator: IntegerOperator) -> None:
        readers = self.readers[operator.name]
        if not readers:
            self._product(operator, Destination.RESULT)
            return
        reader = readers[0]
        if len(readers) > 1:
            raise self._unknown(operator, "is read more than once")
        if reader.kind == "Gelu":
            self._product(operator, Destination.GELU, gelu=reader)
        elif reader.kind == "Embed":
            self._init(reader)
            self._product(
                operator, Destination.RESIDUAL, first=int(reader.attributes["first_token"])
            )
            self._residual_boundary(reader)
        elif reader.kind == "Add":
            self._product(operator, Destination.RESIDUAL)
            self._residual_boundary(reader)
        elif reader.kind == "Attention":
            role = reader.inputs.index(operator.name)
            kind = (Destination.TOKEN, Destination.KEY, Destination.VALUE)[role]
            self._product(operator, kind, heads=int(reader.attributes["heads"]))
        else:
            raise self._unknown(operator, f"is read by {reader.kind} '{reader.name}'")

    def _unknown(self, operator: IntegerOperator, text: str) -> VitruviusError:
        return VitruviusError(
            f"{self.model.name}: the accelerator has no step for {operator.kind} "
            f"'{operator.name}', which {text}"
        )

    def _init(self, embed: IntegerOperator) -> None:
        tokens, width = embed.output
        constant = self.model.tensors[embed.tensors["constant"]].to(torch.int64)
        outputs = self.packing.outputs(1, width)
        lanes = []
        for row in constant.tolist():
            for tile in outputs.tolist():
                lanes.append([0 if output < 0 else row[output] & 0xFFFF for output in tile])
        base = self.packing.column_words(lanes)
        tiles = len(outputs)
        self._step(
            f"{embed.name}.constants",
            embed.name,
            Instruction(
                Opcode.INIT,
                tokens=tokens,
                tiles=tiles,
                last_count=width - (tiles - 1) * self.machine.cols,
                column_base=base,
            ),
        )

    def _product(
        self,
        operator: IntegerOperator,
        destination: Destination,
        *,
        heads: int = 1,
        first: int = 0,
        gelu: IntegerOperator | None = None,
    ) -> None:
        machine = self.machine
        source = self.places[operator.inputs[0]]
        tokens, features = operator.output
        group_features = features // heads
        outputs = self.packing.outputs(heads, group_features)
        base, count = self.packing.weights_of(operator, source, outputs)
        words, last_lanes = self.packing.reduction(source)
        self._need("features", words * machine.depth)
        tiles = len(outputs)
        group_tiles = tiles // heads
        item = Instruction(
            Opcode.PRODUCT,
            a_source=Source.TOKEN,
            b_source=Source.WEIGHT,
            destination=destination,
            tokens=tokens,
            token_base=first,
            words=words,
            last_lanes=last_lanes,
            tiles=tiles,
            group_tiles=group_tiles,
            last_count=group_features - (group_tiles - 1) * machine.cols,
            a_base=self._words(source.base),
            a_stride=self._words(source.pitch),
            b_base=base,
            weight_words=count,
            banks=1,
            column_base=self.packing.columns_of(operator, outputs),
        )
        if destination in (Destination.TOKEN, Destination.GELU):
            owner = gelu or operator
            place = self._place(owner.name, tokens, heads, group_features)
            item = replace(
                item, dst_base=place.base, dst_stride=place.pitch, group_stride=place.group_pitch
            )
            if gelu is not None:
                item = replace(
                    item,
                    multiplier=int(gelu.attributes["output_multiplier"]),
                    shift=int(gelu.attributes["output_shift"]),
                )
        elif destination is Destination.KEY:
            rows = ceil_div(group_features, machine.lanes)
            item = replace(item, dst_stride=heads * rows, group_stride=rows, banks=machine.cols)
            self._need("key", ceil_div(tokens, machine.cols) * heads * rows)
        elif destination is Destination.VALUE:
            item = replace(item, dst_stride=tiles, banks=machine.depth)
            self._need("value", ceil_div(tokens, machine.depth) * tiles)
        elif destination is Destination.RESIDUAL:
            item = replace(item, dst_base=first * tiles, dst_stride=tiles)
            self._need("residual", (first + tokens) * tiles)
            self._need("tokens", first + tokens)
        else:
            self._need("results", tiles * machine.cols)
        self._step(operator.name, operator.name, item, operator.macs)
        if destination in (Destination.TOKEN, Destination.GELU):
            owner = gelu or operator
            self._boundary(owner.name, DebugMemory.TOKEN, self.places[owner.name])

    def _norm(self, operator: IntegerOperator) -> None:
        tokens, width = operator.output
        readers = self.readers[operator.name]
        chosen = {int(reader.attributes["token"]) for reader in readers if reader.kind == "Select"}
        only = len(chosen) == 1 and all(reader.kind == "Select" for reader in readers)
        first, count = (min(chosen), 1) if only else (0, tokens)
        place = self._place(operator.name, count, 1, width)
        outputs = self.packing.outputs(1, width)
        tiles = len(outputs)
        codes = self.model.layernorm_codes(operator)
        gain, offset = codes.gain.tolist(), codes.offset.tolist()
        base = self.packing.column_words(
            [
                [
                    0
                    if output < 0
                    else (offset[output] & 0xFFFFFFFF) | (gain[output] & 0xFFFF) << 32
                    for output in tile
                ]
                for tile in outputs.tolist()
            ]
        )
        self._step(
            operator.name,
            operator.name,
            Instruction(
                Opcode.NORM,
                tokens=count,
                token_base=first,
                tiles=tiles,
                last_count=width - (tiles - 1) * self.machine.cols,
                a_base=first * tiles,
                dst_base=place.base,
                dst_stride=place.pitch,
                column_base=base,
                width=width,
                affine_shift=codes.shift,
                epsilon=codes.epsilon,
            ),
        )
        if not only:
            self._boundary(operator.name, DebugMemory.TOKEN, place)

    def _select(self, operator: IntegerOperator) -> None:
        source = self.places[operator.inputs[0]]
        token = int(operator.attributes["token"])
        # A LayerNorm of which only this token is read has normalised nothing else.
        row = source.base if source.tokens == 1 else source.base + token * source.pitch
        self.places[operator.name] = replace(source, base=row, tokens=1)
        self.arena.live[operator.name] = (row, source.pitch)

    def _attention(self, operator: IntegerOperator) -> None:
        machine = self.machine
        tokens, features = operator.output
        codes = self.model.attention_codes(operator)
        heads, head_dim = codes.heads, features // codes.heads
        query = self.places[operator.inputs[0]]
        place = self._place(operator.name, tokens, heads, head_dim)
        key_rows = ceil_div(head_dim, machine.lanes)
        attention_pitch = ceil_div(tokens, machine.lanes)
        score_tiles, value_tiles = ceil_div(tokens, machine.cols), ceil_div(head_dim, machine.cols)
        score_words, apply_words = (
            ceil_div(head_dim, machine.depth),
            ceil_div(tokens, machine.depth),
        )
        self._need("attention", tokens * attention_pitch)
        self._need("tokens", tokens)
        self._need("features", max(score_words, apply_words) * machine.depth)
        macs = tokens * tokens * head_dim
        for head in range(heads):
            self._step(
                f"{operator.name}.head{head}.scores",
                operator.name,
                Instruction(
                    Opcode.PRODUCT,
                    a_source=Source.TOKEN,
                    b_source=Source.KEY,
                    destination=Destination.SCORE,
                    tokens=tokens,
                    words=score_words,
                    last_lanes=head_dim - (score_words - 1) * machine.depth,
                    tiles=score_tiles,
                    group_tiles=score_tiles,
                    last_count=tokens - (score_tiles - 1) * machine.cols,
                    a_base=self._words(query.base + head * query.group_pitch),
                    a_stride=self._words(query.pitch),
                    b_base=self._words(head * key_rows),
                    b_tile_stride=self._words(heads * key_rows),
                    b_word_stride=1,
                    dst_stride=attention_pitch,
                    banks=1,
                    multiplier=codes.score.multiplier,
                    shift=codes.score.shift,
                ),
                macs,
            )
            self._step(
                f"{operator.name}.head{head}.apply",
                operator.name,
                Instruction(
                    Opcode.PRODUCT,
                    a_source=Source.ATTENTION,
                    b_source=Source.VALUE,
                    destination=Destination.APPLY,
                    tokens=tokens,
                    words=apply_words,
                    last_lanes=tokens - (apply_words - 1) * machine.depth,
                    tiles=value_tiles,
                    group_tiles=value_tiles,
                    last_count=head_dim - (value_tiles - 1) * machine.cols,
                    a_base=0,
                    a_stride=self._words(attention_pitch),
                    b_base=head * value_tiles,
                    b_tile_stride=1,
                    b_word_stride=heads * value_tiles,
                    dst_base=place.base + head * place.group_pitch,
                    dst_stride=place.pitch,
                    group_stride=place.group_pitch,
                    banks=1,
                    multiplier=codes.apply.multiplier,
                    shift=codes.apply.shift,
                ),
                macs,
            )
        self._boundary(operator.name, DebugMemory.TOKEN, place)

    def _usage(self, results: int) -> tuple[Usage, ...]:
        machine = self.machine
        lanes, cols, depth = machine.lanes, machine.cols, machine.depth

        def bytes_of(buffer: str, words: int, capacity: int, word_bytes: int) -> Usage:
            return Usage(buffer, words * word_bytes, capacity * word_bytes, "bytes")

        need = self.needs.get
        return (
            bytes_of("token", self.arena.peak, machine.token_rows, lanes),
            bytes_of("key", need("key", 0), machine.key_rows, lanes * cols),
            bytes_of("value", need("value", 0), machine.value_rows, cols * depth),
            bytes_of("attention", need("attention", 0), machine.attention_rows, lanes),
            bytes_of("residual", need("residual", 0), machine.residual_rows, 2 * cols),
            bytes_of("weight", len(self.packing.weights), machine.weight_words, cols * depth),
            bytes_of("column", len(self.packing.columns), machine.column_words, 7 * cols),
            Usage("tokens", need("tokens", 0), machine.buffers.tokens, "tokens"),
            Usage("features", need("features", 0), machine.slot_words * depth, "elements"),
            Usage("results", results, machine.buffers.results, "elements"),
            Usage("instructions", len(self.steps), machine.buffers.instructions, "instructions"),
        )


def _same(rows: int) -> int:
    return rows
