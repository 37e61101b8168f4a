"""From an IntegerModel and a Machine to a Program: products, addresses, waits, memory images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ...errors import VitruviusError
from ...models.integer_model import IntegerModel, IntegerOperator
from ..placement import Arena, Rows, ceil_div
from ..refusals import refuse_unknown
from .core import DebugMemory, Target
from .counters import Counter, modular
from .instruction import Destination, Norm, Product, Source
from .machine import Machine, load_machine, machine_names
from .norm_engine import COLUMN_BITS as NORM_COLUMN_BITS
from .packing import Packing
from .program import Boundary, Fetch, NormStep, Program, Step, Usage, check

__all__ = ["compile_model"]

_FIRST_PARTS = 8
"""Parts of the first product, if they keep all slots busy: it begins when one has come."""
_FIRST_WORDS = 512
"""Words of a matrix for which that is worth while."""


def compile_model(model: IntegerModel, machine: Machine) -> Program:
    """The Program of ``model`` on ``machine``.

    Raises VitruviusError if the model's operators do not form a pre-norm encoder that the
    accelerator knows (all that it has no step for), or if a buffer is too small (all of them, with
    what is missing, and the smallest shipped machine on which the model fits).
    """
    refuse_unknown(model)
    program = _Compiler(model, machine).run()
    short = _short(program)
    if short:
        raise VitruviusError(
            f"{model.name} does not fit machine '{machine.name}': "
            + "; ".join(
                f"buffers.{usage.buffer} needs {usage.used} {usage.unit}, has {usage.capacity}, "
                f"{usage.used - usage.capacity} missing"
                for usage in short
            )
            + _that_fits(model)
        )
    check(program)
    return program


def _short(program: Program) -> list[Usage]:
    return [usage for usage in program.usage if usage.used > usage.capacity]


def _size(machine: Machine) -> tuple[int, int]:
    return machine.multipliers, machine.buffers.token + machine.buffers.weight


def _that_fits(model: IntegerModel) -> str:
    """The smallest shipped machine on which ``model`` fits, in words."""
    shipped = sorted(map(load_machine, machine_names()), key=_size)
    for machine in shipped:
        if not _short(_Compiler(model, machine).run()):
            return f"; it fits machine '{machine.name}'"
    return "; no shipped machine is large enough"


@dataclass(frozen=True)
class _Ready:
    """When rows of a tensor can be read: row t once ``counter`` has come to ``first`` + t."""

    counter: Counter
    first: int
    source: Source


@dataclass(frozen=True)
class _Matrix:
    """A matrix on its way through the weight buffer, and the product that reads it."""

    source: int
    words: int
    product: int


class _Compiler:
    def __init__(self, model: IntegerModel, machine: Machine) -> None:
        self.model = model
        self.machine = machine
        self.steps: list[Step] = []
        self.norms: list[NormStep] = []
        self.matrices: list[_Matrix] = []
        self.packing = Packing(model, machine)
        self.columns: list[int] = []
        self.norm_columns: list[int] = []
        self.constants: list[int] = []
        self.boundaries: list[Boundary] = []
        self.arena = Arena()
        self.places: dict[str, Rows] = {}
        self.ready: dict[str, _Ready] = {}
        self.counts = dict.fromkeys(Counter, 0)
        self.normal_readers = 0
        self.readers = {
            operator.name: [reader for reader in model.operators if operator.name in reader.inputs]
            for operator in model.operators
        }
        self.needs: dict[str, int] = {}
        self.done: set[str] = set()

    def run(self) -> Program:
        handlers: dict[str, Callable[[IntegerOperator], None]] = {
            "Quantize": self._image,
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
        self.steps[-1] = replace(
            self.steps[-1], instruction=replace(self.steps[-1].instruction, final=1)
        )
        results = operators[-1].output[1]
        image = self.places[operators[0].name]
        features = operators[0].output[1]
        fetches = self._place_weights()
        return Program(
            model=self.model,
            machine=self.machine,
            steps=tuple(self.steps),
            norms=tuple(self.norms),
            boot=self._boot(),
            fetches=fetches,
            weights=self.packing.weights,
            columns=tuple(self.columns),
            norm_columns=tuple(self.norm_columns),
            constants=tuple(self.constants),
            image_tokens=image.tokens,
            image_words=ceil_div(features, self.machine.depth),
            image_features=features,
            results=results,
            boundaries=tuple(self.boundaries),
            usage=self._usage(results, len(fetches)),
        )

    # -- transfers from memory --------------------------------------------------------------------

    def _boot(self) -> tuple[Fetch, ...]:
        """What is brought once: columns, constants, and the programs with their LOOPs."""
        extents = {
            Target.COLUMN: len(self.columns),
            Target.NORM_COLUMN: len(self.norm_columns),
            Target.CONSTANT: len(self.constants),
            Target.PRODUCT_PROGRAM: len(self.steps) + 1,
            Target.NORM_PROGRAM: len(self.norms) + 1,
        }
        return tuple(Fetch(target, 0, words, 0) for target, words in extents.items() if words)

    def _place_weights(self) -> tuple[Fetch, ...]:
        """Addresses of the matrices in the weight buffer, one behind the other and around; a matrix
        waits for the last product that reads what it overwrites, in this image or the one before.
        """
        capacity = self.machine.weight_words
        position = 0
        fetches: list[Fetch] = []
        places: list[tuple[int, int, int]] = []  # start, end, product
        image = self.places[self.model.operators[0].name]
        words = image.tokens * image.pitch
        first = self.matrices[0].product
        products = len(self.steps)
        for matrix in self.matrices:
            if position + matrix.words > capacity:
                position = 0
            places.append((position, position + matrix.words, matrix.product))
            position += matrix.words
        for index, (matrix, (start, end, product)) in enumerate(
            zip(self.matrices, places, strict=True)
        ):
            # The matrices before this one in reverse order, those of the image before behind them.
            earlier = [(place, 0) for place in reversed(places[:index])]
            earlier += [(place, products) for place in reversed(places[index:])]
            over = [
                reader - back for (low, high, reader), back in earlier if low < end and start < high
            ]
            threshold = max(over) + 1 if over else None
            if index == 0:
                fetches.append(Fetch(Target.WEIGHT, matrix.source, matrix.words, start, threshold))
                fetches.append(Fetch(Target.IMAGE, 0, words, 0, first + 1 - products))
            else:
                fetches.append(Fetch(Target.WEIGHT, matrix.source, matrix.words, start, threshold))
            step = self.steps[product]
            self.steps[product] = replace(
                step,
                instruction=replace(
                    step.instruction,
                    b_base=start,
                    start_wait=Counter.FETCHED,
                    # the image comes right behind the first matrix
                    start_threshold=2 if index == 0 else len(fetches),
                ),
            )
        return tuple(fetches)

    # -- small parts --------------------------------------------------------------------------

    def _need(self, buffer: str, amount: int) -> None:
        self.needs[buffer] = max(self.needs.get(buffer, 0), amount)

    def _words(self, rows: int) -> int:
        return rows * self.machine.subwords

    def _rows(self, tokens: int, groups: int, group_features: int, base: int = 0) -> Rows:
        pitch = groups * ceil_div(group_features, self.machine.lanes)
        return Rows(base, pitch, tokens, groups, group_features)

    def _place(self, name: str, tokens: int, groups: int, group_features: int) -> Rows:
        place = self._rows(tokens, groups, group_features)
        place = replace(place, base=self.arena.take(name, tokens * place.pitch))
        self.places[name] = place
        return place

    def _boundary(self, operator: str, memory: DebugMemory, place: Rows) -> None:
        words = self._words if memory is not DebugMemory.RESIDUAL else _same
        self.boundaries.append(
            Boundary(
                product=len(self.steps),
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

    def _product(self, name: str, operator: str, item: Product, macs: int) -> None:
        """Appends a product; rows that wait for a counter are read one by one."""
        self.steps.append(Step(name, operator, item, macs))
        self.counts[Counter.DRAINED] += item.tokens
        self.counts[Counter.ISSUED] += 1
        if item.destination is Destination.SCORE:
            self.counts[Counter.WEIGHED] += item.tokens
        if item.a_source is Source.NORMAL:
            self.normal_readers = self.counts[Counter.ISSUED]

    def _drained(self, tokens: int) -> _Ready:
        """Of the product that was appended last, with ``tokens`` rows."""
        return _Ready(Counter.DRAINED, self.counts[Counter.DRAINED] - tokens + 1, Source.TOKEN)

    @staticmethod
    def _waiting(item: Product, ready: _Ready) -> Product:
        if ready.counter is Counter.FETCHED:
            return replace(item, a_source=ready.source)
        return replace(
            item,
            a_source=ready.source,
            row_wait=ready.counter,
            row_threshold=modular(ready.first),
            row_step=1,
        )

    # -- one method per integer operator ----------------------------------------------------

    def _image(self, operator: IntegerOperator) -> None:
        tokens, features = operator.output
        words = ceil_div(features, self.machine.depth)
        # In the image buffer a row is a word.
        self.places[operator.name] = Rows(0, words, tokens, 1, features)
        self.ready[operator.name] = _Ready(Counter.FETCHED, 0, Source.IMAGE)
        self._need("image", tokens * words)

    def _inside(self, operator: IntegerOperator) -> None:
        """Gelu, Embed and Add run in the drain path of the Linear before them."""

    def _linear(self, operator: IntegerOperator) -> None:
        readers = self.readers[operator.name]
        if not readers:
            self._linear_product(operator, Destination.RESULT)
            return
        reader = readers[0]
        if len(readers) > 1:
            raise self._unknown(operator, "is read more than once")
        if reader.kind == "Gelu":
            self._linear_product(operator, Destination.GELU, gelu=reader)
        elif reader.kind == "Embed":
            self._constants(reader)
            self._linear_product(
                operator, Destination.EMBED, void=int(reader.attributes["first_token"])
            )
            self._residual_boundary(reader)
        elif reader.kind == "Add":
            self._linear_product(operator, Destination.RESIDUAL)
            self._residual_boundary(reader)
        elif reader.kind == "Attention":
            role = reader.inputs.index(operator.name)
            kind = (Destination.TOKEN, Destination.KEY, Destination.VALUE)[role]
            self._linear_product(operator, kind, heads=int(reader.attributes["heads"]))
        else:
            raise self._unknown(operator, f"is read by {reader.kind} '{reader.name}'")

    def _unknown(self, operator: IntegerOperator, text: str) -> VitruviusError:
        return VitruviusError(
            f"{self.model.name}: the accelerator has no step for {operator.kind} "
            f"'{operator.name}', which {text}"
        )

    def _constants(self, embed: IntegerOperator) -> None:
        _, width = embed.output
        constant = self.model.tensors[embed.tensors["constant"]].to(torch.int64)
        outputs = self.packing.outputs(1, width).tolist()
        self.constants = [
            sum(
                (row[output] & 0xFFFF) << (16 * lane)
                for lane, output in enumerate(tile)
                if output >= 0
            )
            for row in constant.tolist()
            for tile in outputs
        ]

    def _linear_product(
        self,
        operator: IntegerOperator,
        destination: Destination,
        *,
        heads: int = 1,
        void: int = 0,
        gelu: IntegerOperator | None = None,
    ) -> None:
        machine = self.machine
        source = self.places[operator.inputs[0]]
        ready = self.ready[operator.inputs[0]]
        tokens, features = operator.output
        tokens += void
        group_features = features // heads
        outputs = self.packing.outputs(heads, group_features)
        from_image = ready.source is Source.IMAGE
        row_lanes = machine.depth if from_image else machine.lanes
        words, last_lanes = self.packing.reduction(source, row_lanes)
        self._need("features", words * machine.depth)
        tiles = len(outputs)
        group_tiles = tiles // heads
        scale = 1 if from_image else machine.subwords
        item = Product(
            destination=destination,
            tokens=tokens,
            void=void,
            words=words,
            last_lanes=last_lanes,
            group_tiles=group_tiles,
            last_count=group_features - (group_tiles - 1) * machine.cols,
            a_base=source.base * scale,
            a_stride=source.pitch * scale,
            b_tile_stride=words,
            b_word_stride=1,
            banks=1,
        )
        item = self._waiting(item, ready)
        row_tiles = 0  # destination rows of a tile: 1 where a row holds one tile
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
            row_tiles = 1
            item = replace(item, dst_stride=tiles, banks=machine.depth)
            self._need("value", ceil_div(tokens, machine.depth) * tiles)
        elif destination in (Destination.RESIDUAL, Destination.EMBED):
            row_tiles = 1
            item = replace(item, dst_stride=tiles)
            self._need("residual", tokens * tiles)
            self._need("tokens", tokens)
        else:
            row_tiles = 1
            item = replace(item, results=features)
            self._need("results", tiles * machine.cols)
        column_base = len(self.columns)
        self.columns += self.packing.columns_of(operator, outputs)

        # In parts, if the whole matrix would leave no room for the next one.
        unit = self._unit(destination, group_tiles, heads)
        most = max(unit, machine.weight_words // 2 // words // unit * unit)
        if destination is Destination.EMBED and tiles * words >= _FIRST_WORDS:
            # The first product of a run has nothing to hide the transfer of its weights behind.
            most = min(most, max(machine.rows, ceil_div(tiles, _FIRST_PARTS)))
        previous: _Ready | None = None
        for first in range(0, tiles, most):
            count = min(most, tiles - first)
            last_part = first + count == tiles
            part = replace(
                item,
                tiles=count,
                group_tiles=group_tiles if heads > 1 else count,
                last_count=item.last_count if last_part or heads > 1 else machine.cols,
                dst_base=item.dst_base
                + (
                    first * row_tiles
                    if row_tiles
                    else first // group_tiles * item.group_stride
                    if heads > 1
                    else first * machine.cols // machine.lanes
                ),
                column_base=column_base + first,
            )
            if previous is not None and destination in (Destination.RESIDUAL, Destination.EMBED):
                # Its statistics go on from those of the part before.
                part = self._waiting(replace(part, accumulate=1), previous)
                part = replace(part, a_source=item.a_source)
            base, size = self.packing.weights_of(
                operator, source, outputs[first : first + count], words, row_lanes
            )
            self.matrices.append(_Matrix(base, size, len(self.steps)))
            valid = int((outputs[first : first + count] >= 0).sum())
            macs = operator.macs * valid // features
            name = operator.name if count == tiles else f"{operator.name}[{first}:{first + count}]"
            self._product(name, operator.name, part, macs)
            previous = self._drained(tokens)
        assert previous is not None
        owner = gelu or operator
        self.ready[owner.name] = previous
        if destination in (Destination.RESIDUAL, Destination.EMBED):
            self.ready[self.readers[operator.name][0].name] = previous
        if destination in (Destination.TOKEN, Destination.GELU):
            self._boundary(owner.name, DebugMemory.TOKEN, self.places[owner.name])

    def _unit(self, destination: Destination, group_tiles: int, heads: int) -> int:
        """Tiles that a part of a product must be a multiple of."""
        if heads > 1:
            return group_tiles
        if destination in (Destination.TOKEN, Destination.GELU, Destination.KEY):
            return self.machine.lanes // math.gcd(self.machine.lanes, self.machine.cols)
        return 1

    def _norm(self, operator: IntegerOperator) -> None:
        tokens, width = operator.output
        readers = self.readers[operator.name]
        chosen = {int(reader.attributes["token"]) for reader in readers if reader.kind == "Select"}
        only = len(chosen) == 1 and all(reader.kind == "Select" for reader in readers)
        first, count = (min(chosen), 1) if only else (0, tokens)
        place = self._rows(count, 1, width)
        self.places[operator.name] = place
        self._need("normal", count * place.pitch)
        outputs = self.packing.outputs(1, width).tolist()
        tiles = len(outputs)
        codes = self.model.layernorm_codes(operator)
        gain, offset = codes.gain.tolist(), codes.offset.tolist()
        base = len(self.norm_columns)
        self.norm_columns += [
            sum(
                ((offset[output] & 0xFFFFFFFF) | (gain[output] & 0xFFFF) << 32)
                << (NORM_COLUMN_BITS * lane)
                for lane, output in enumerate(tile)
                if output >= 0
            )
            for tile in outputs
        ]
        source = self.ready[operator.inputs[0]]
        self.norms.append(
            NormStep(
                operator.name,
                Norm(
                    row_threshold=modular(source.first + first),
                    # the last product that reads the rows of the normalisation before
                    start_threshold=modular(self.normal_readers),
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
        )
        self.ready[operator.name] = _Ready(
            Counter.NORMALISED, self.counts[Counter.NORMALISED] + 1, Source.NORMAL
        )
        self.counts[Counter.NORMALISED] += count
        self.arena.free(operator.name)
        if not only:
            self._boundary(operator.name, DebugMemory.NORMAL, place)

    def _select(self, operator: IntegerOperator) -> None:
        source = self.places[operator.inputs[0]]
        token = int(operator.attributes["token"])
        # A LayerNorm of which only this token is read has normalised nothing else.
        row = source.base if source.tokens == 1 else source.base + token * source.pitch
        self.places[operator.name] = replace(source, base=row, tokens=1)
        ready = self.ready[operator.inputs[0]]
        if source.tokens > 1:  # the next image overwrites what is normalised here
            ready = replace(ready, first=ready.first + source.tokens - 1)
        self.ready[operator.name] = ready

    def _attention(self, operator: IntegerOperator) -> None:
        machine = self.machine
        tokens, features = operator.output
        codes = self.model.attention_codes(operator)
        heads, head_dim = codes.heads, features // codes.heads
        names = dict(zip(("query", "key", "value"), operator.inputs, strict=False))
        query = self.places[names["query"]]
        place = self._place(operator.name, tokens, heads, head_dim)
        key_rows = ceil_div(head_dim, machine.lanes)
        attention_pitch = ceil_div(tokens, machine.lanes)
        score_tiles, value_tiles = ceil_div(tokens, machine.cols), ceil_div(head_dim, machine.cols)
        score_words, apply_words = (
            ceil_div(head_dim, machine.depth),
            ceil_div(tokens, machine.depth),
        )
        self._need("attention", min(heads, 2) * tokens * attention_pitch)
        self._need("tokens", tokens)
        self._need("features", max(score_words, apply_words) * machine.depth)
        macs = tokens * tokens * head_dim
        weighed: list[int] = []

        def scores(head: int) -> None:
            item = Product(
                b_source=Source.KEY,
                destination=Destination.SCORE,
                tokens=tokens,
                token_base=head % 2 * tokens,
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
                start_wait=Counter.DRAINED,
                start_threshold=modular(self.ready[names["key"]].first + tokens - 1),
            )
            weighed.append(self.counts[Counter.WEIGHED] + 1)
            item = self._waiting(item, self.ready[names["query"]])
            self._product(f"{operator.name}.head{head}.scores", operator.name, item, macs)

        def apply(head: int) -> None:
            item = Product(
                a_source=Source.ATTENTION,
                b_source=Source.VALUE,
                destination=Destination.APPLY,
                tokens=tokens,
                token_base=head % 2 * tokens,
                words=apply_words,
                last_lanes=tokens - (apply_words - 1) * machine.depth,
                tiles=value_tiles,
                group_tiles=value_tiles,
                last_count=head_dim - (value_tiles - 1) * machine.cols,
                a_base=self._words(head % 2 * tokens * attention_pitch),
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
                start_wait=Counter.DRAINED,
                start_threshold=modular(self.ready[names["value"]].first + tokens - 1),
            )
            item = self._waiting(item, _Ready(Counter.WEIGHED, weighed[head], Source.ATTENTION))
            self._product(f"{operator.name}.head{head}.apply", operator.name, item, macs)

        # The scores of the next head run while the softmax of this one ends.
        scores(0)
        for head in range(heads):
            if head + 1 < heads:
                scores(head + 1)
            apply(head)
        self.ready[operator.name] = self._drained(tokens)
        self._boundary(operator.name, DebugMemory.TOKEN, place)

    def _usage(self, results: int, fetches: int) -> tuple[Usage, ...]:
        machine = self.machine
        lanes, cols, depth = machine.lanes, machine.cols, machine.depth

        def bytes_of(buffer: str, words: int, capacity: int, word_bytes: int) -> Usage:
            return Usage(buffer, words * word_bytes, capacity * word_bytes, "bytes")

        need = self.needs.get
        weight = max(matrix.words for matrix in self.matrices)
        buffers = machine.buffers
        return (
            bytes_of("token", self.arena.peak, machine.token_rows, lanes),
            bytes_of("normal", need("normal", 0), machine.normal_rows, lanes),
            bytes_of("image", need("image", 0), machine.image_words, depth),
            bytes_of("key", need("key", 0), machine.key_rows, lanes * cols),
            bytes_of("value", need("value", 0), machine.value_rows, cols * depth),
            bytes_of("attention", need("attention", 0), machine.attention_rows, lanes),
            bytes_of("residual", need("residual", 0), machine.residual_rows, 2 * cols),
            bytes_of("constant", len(self.constants), machine.constant_rows, 2 * cols),
            bytes_of("weight", weight, machine.weight_words, cols * depth),
            bytes_of("column", len(self.columns), machine.column_words, 7 * cols),
            bytes_of("norm_column", len(self.norm_columns), machine.norm_column_words, 6 * cols),
            Usage("tokens", need("tokens", 0), buffers.tokens, "tokens"),
            Usage("features", need("features", 0), machine.slot_words * depth, "elements"),
            Usage("results", results, buffers.results, "elements"),
            Usage("products", len(self.steps) + 1, buffers.products, "instructions"),
            Usage("norms", len(self.norms) + 1, buffers.norms, "instructions"),
            Usage("fetches", fetches + 8, buffers.fetches, "transfers"),
        )


def _same(rows: int) -> int:
    return rows
