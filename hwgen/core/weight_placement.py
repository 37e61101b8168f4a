"""Where matrices lie in the weight buffer, when each may be brought, and in which parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..placement import ceil_div

__all__ = ["Matrix", "Place", "parts", "place_matrices"]

_FIRST_PARTS = 8
"""Parts of a matrix that nothing hides the transfer of: its product begins when one has come."""
_FIRST_WORDS = 512
"""Words of such a matrix from which on that is worth while."""


@dataclass(frozen=True)
class Matrix:
    """A matrix on its way through the weight buffer. source: its first word in memory; words: how
    many; product: index of the product that reads it. expert, routed, tasks: as in a Fetch.
    """

    source: int
    words: int
    product: int
    expert: int = 0
    routed: int = 0
    tasks: int = 1


@dataclass(frozen=True)
class Place:
    """Where a matrix lies. start: its first word in the weight buffer; threshold: products issued
    before what it overwrites is free, counted from the image's first one.
    """

    start: int
    threshold: int


def place_matrices(matrices: Sequence[Matrix], capacity: int, products: int) -> tuple[Place, ...]:
    """Places of ``matrices`` in a weight buffer of ``capacity`` words: each where what it
    overwrites is read earliest.

    Each image brings the same matrices to the same places, in this order, and has ``products``
    products; no two matrices belong to one product. A matrix waits for the last product that reads
    a word of what it overwrites; one that the image before has issued gives a threshold that is
    not positive. A matrix larger than the buffer gets words behind its end.

    >>> sizes = (3, 2, 2)
    >>> matrices = [Matrix(0, words, product) for product, words in enumerate(sizes)]
    >>> for place in place_matrices(matrices, 5, products=3):
    ...     print(place)
    Place(start=0, threshold=0)
    Place(start=3, threshold=-1)
    Place(start=0, threshold=1)
    """
    starts: list[int] = []
    taken: list[tuple[int, int, int]] = []  # start, end, reader of what lies in the buffer now
    for matrix in matrices:
        start = _freest(taken, matrix.words, capacity)
        starts.append(start)
        end = start + matrix.words
        below = [(low, min(high, start), reader) for low, high, reader in taken if low < start]
        above = [(max(low, end), high, reader) for low, high, reader in taken if end < high]
        taken = [*below, (start, end, matrix.product), *above]
    spans = [
        (start, start + matrix.words, matrix.product)
        for start, matrix in zip(starts, matrices, strict=True)
    ]
    places = []
    for index, (start, end, _) in enumerate(spans):
        before = [(low, high, reader - products) for low, high, reader in spans[index:]]
        last = max(
            reader for low, high, reader in before + spans[:index] if low < end and start < high
        )
        places.append(Place(start, last + 1))
    return tuple(places)


def _freest(taken: Sequence[tuple[int, int, int]], words: int, capacity: int) -> int:
    """Where ``words`` words overwrite what is read earliest; of such places one that leaves no gap
    to a border of the buffer or to what stays, and as low as possible.
    """
    ends = {0, *(end for _, end, _ in taken)}
    starts = ends | {capacity - words, *(low - words for low, _, _ in taken)}

    def cost(start: int) -> tuple[int, bool, bool, int]:
        end = start + words
        over = [item for item in taken if item[0] < end and start < item[1]]
        last = max((reader for _, _, reader in over), default=-1)
        borders = start == 0 or end == capacity
        return last, not borders, start not in ends, start

    return min((start for start in starts if 0 <= start <= capacity - words), key=cost, default=0)


def parts(
    tiles: int, words: int, capacity: int, *, unit: int = 1, fewest: int | None = None
) -> list[range]:
    """The tiles of each part in which a matrix of ``tiles`` tiles of ``words`` words comes: as
    many as leave half of the ``capacity`` words to the next one, a multiple of ``unit`` but in the
    last part.

    fewest: given for a matrix whose transfer nothing hides: it comes in more parts than it needs,
    of so many tiles at least.

    >>> parts(10, 8, 64)
    [range(0, 4), range(4, 8), range(8, 10)]
    >>> parts(10, 8, 64, unit=3)
    [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
    >>> [len(part) for part in parts(64, 8, 2048, fewest=6)]
    [8, 8, 8, 8, 8, 8, 8, 8]
    """
    most = max(unit, capacity // 2 // words // unit * unit)
    if fewest is not None and tiles * words >= _FIRST_WORDS:
        most = min(most, max(fewest, ceil_div(tiles, _FIRST_PARTS)))
    return [range(first, min(first + most, tiles)) for first in range(0, tiles, most)]
