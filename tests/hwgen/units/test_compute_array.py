import pytest

from vitruvius.hwgen.units.compute_array import LATENCY, ComputeArray, cycles


def pack(values, bits):
    return sum((value & ((1 << bits) - 1)) << (bits * index) for index, value in enumerate(values))


class Products:
    """Products one after another: their operand words by cycle, and the sums that should drain."""

    def __init__(self, rng, *, rows, cols, depth, gaps, planes=False):
        names = ("a", "b", "valid", "first", "last", *(["upper"] if planes else []))
        self.inputs = {name: [] for name in names}
        self.expected = {}  # cycle -> (row, sums)
        for index in range(40):
            words = 1 if index == 0 else rng.randint(1, 9)
            extreme = index in (1, 2, 3)
            sums = [[0] * cols for _ in range(rows)]
            # The drain takes `rows` cycles, so products end at least that far apart.
            for _ in range(max(0, rows - words)):
                self._put(rng, rows, cols, depth, None, 1, 1)
            begin = len(self.inputs["valid"])
            for word in range(words):
                while gaps and rng.random() < 0.4:
                    self._put(rng, rows, cols, depth, None, 1, 1)
                if extreme:  # the largest products of either sign, over the whole word
                    x, w = {1: (-128, -128), 2: (255, -128), 3: (255, 127)}[index]
                    a = [[x] * depth for _ in range(rows)]
                    b = [[w] * depth for _ in range(cols)]
                else:
                    a = [[rng.randint(-128, 255) for _ in range(depth)] for _ in range(rows)]
                    b = [[rng.randint(-128, 127) for _ in range(depth)] for _ in range(cols)]
                upper = planes and rng.random() < 0.5
                for row in range(rows):
                    for col in range(cols):
                        product = sum(map(int.__mul__, a[row], b[col]))
                        sums[row][col] += product << 8 * upper
                end = word == words - 1
                self._put(rng, rows, cols, depth, (a, b), word == 0, end, upper)
            end = len(self.inputs["valid"]) - 1
            for row in range(rows):
                cycle = end + LATENCY + row
                if not gaps:
                    assert cycle == begin + cycles(words, rows)[0] + row
                self.expected[cycle] = (row, pack(sums[row], 32))

    def _put(self, rng, rows, cols, depth, operands, first, last, upper=1):
        a = b = None
        if operands is not None:
            a = pack([x for row in operands[0] for x in row], 9)
            b = pack([w for col in operands[1] for w in col], 8)
        else:
            a, b = rng.getrandbits(9 * rows * depth), rng.getrandbits(8 * cols * depth)
        values = (a, b, int(operands is not None), int(first), int(last), int(upper))
        for name, value in zip(self.inputs, values, strict=False):
            self.inputs[name].append(value)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(
    ("rows", "cols", "depth", "planes"),
    [(1, 1, 1, False), (3, 5, 7, False), (4, 2, 8, False), (3, 2, 5, True)],
)
def test_products_drain_in_the_stated_cycles(play, rng, rows, cols, depth, planes, packing, gaps):
    """Of planes, fails for one that is a word early or late, or that loses the sign of a sum."""
    unit = ComputeArray(rows=rows, cols=cols, depth=depth, packing=packing, planes=planes)
    products = Products(rng, rows=rows, cols=cols, depth=depth, gaps=gaps, planes=planes)
    products.inputs["valid"].append(0)
    record = play(
        unit,
        products.inputs,
        {"drain_valid": 1, "drain_row": 8, "drain": 32 * cols},
        extra=LATENCY + rows,
    )
    seen = {
        cycle: (record["drain_row"][cycle], record["drain"][cycle])
        for cycle, valid in enumerate(record["drain_valid"])
        if valid
    }
    assert seen == products.expected


@pytest.mark.parametrize("name", ["rows", "cols", "depth"])
def test_bad_extents_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        ComputeArray(**{"rows": 1, "cols": 1, "depth": 1, name: 0})
