"""Places of random matrices, against a simulation word by word; parts, tile by tile."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from vitruvius.hwgen.core.weight_placement import Matrix, Place, parts, place_matrices

IMAGES = 4


@dataclass(frozen=True)
class Case:
    """Random matrices for a weight buffer; some products read none."""

    matrices: list[Matrix]
    capacity: int
    products: int

    @property
    def places(self) -> tuple[Place, ...]:
        return place_matrices(self.matrices, self.capacity, self.products)


@pytest.fixture(params=range(60))
def case(request: pytest.FixtureRequest) -> Case:
    print(f"seed {request.param}")
    draw = random.Random(f"weights {request.param}")
    capacity = draw.randint(1, 40)
    products = draw.randint(1, 24)
    readers = sorted(draw.sample(range(products), draw.randint(1, products)))
    most = draw.randint(1, capacity)  # many small ones, or few that fill the buffer
    matrices = []
    source = 0
    for reader in readers:
        words = draw.randint(1, most)
        matrices.append(Matrix(source, words, reader))
        source += words
    return Case(matrices, capacity, products)


def broken(case: Case, places: tuple[Place, ...]) -> str:
    """What goes wrong when every matrix is brought as early as its threshold allows; "" if nothing
    does. The transfer engine brings matrices in order, the product engine issues products in order.
    """
    buffer: dict[int, tuple[int, int]] = {}
    transfers = [(image, index) for image in range(IMAGES) for index in range(len(case.matrices))]
    brought = 0
    reader = {matrix.product: index for index, matrix in enumerate(case.matrices)}
    for issued in range(IMAGES * case.products):
        while brought < len(transfers):
            image, index = transfers[brought]
            place = places[index]
            if place.threshold + image * case.products > issued:
                break
            for word in range(place.start, place.start + case.matrices[index].words):
                buffer[word] = image, index
            brought += 1
        image, product = divmod(issued, case.products)
        if product not in reader:
            continue
        index = reader[product]
        if transfers.index((image, index)) >= brought:
            return f"product {product} of image {image} waits for ever"
        place = places[index]
        for word in range(place.start, place.start + case.matrices[index].words):
            if buffer[word] != (image, index):
                return f"word {word} of product {product}, image {image}: {buffer[word]}"
    return ""


def test_every_product_finds_its_matrix_whole(case: Case) -> None:
    """Catches a matrix overwritten before its last reader, within an image or across its border,
    and one that waits for a product behind its own.
    """
    assert broken(case, case.places) == ""


def test_no_matrix_waits_longer_than_it_must(case: Case) -> None:
    """Catches a threshold of a product that reads nothing of what is overwritten."""
    for index, place in enumerate(case.places):
        assert place.threshold == last_reader(case, index) + 1


def last_reader(case: Case, index: int) -> int:
    """The last product that reads what matrix ``index`` overwrites, counted from its image."""
    reader: dict[int, int] = {}
    for image in range(2):
        for matrix, place in zip(case.matrices, case.places, strict=True):
            words = range(place.start, place.start + matrix.words)
            if image == 1 and matrix is case.matrices[index]:
                return max(reader[word] for word in words) - case.products
            for word in words:
                reader[word] = matrix.product + image * case.products
    raise AssertionError


def test_no_other_place_is_free_earlier(case: Case) -> None:
    """Catches a matrix that runs out of the buffer, and one that waits for a product where another
    place would have let it come earlier. Every place is tried.
    """
    reader = [-1] * case.capacity
    for matrix, place in zip(case.matrices, case.places, strict=True):
        assert place.start + matrix.words <= case.capacity
        free = [
            max(reader[start : start + matrix.words])
            for start in range(case.capacity - matrix.words + 1)
        ]
        assert free[place.start] == min(free)
        reader[place.start : place.start + matrix.words] = [matrix.product] * matrix.words


def test_halves_take_turns() -> None:
    """Matrices of nearly half the buffer, of unequal sizes: each comes while the one before it is
    read. Placed one behind the other, the third would overwrite both.
    """
    sizes = (45, 50, 48, 50, 46, 49, 50, 45)
    matrices = [Matrix(0, words, product) for product, words in enumerate(sizes)]
    places = place_matrices(matrices, 100, products=8)
    assert [place.threshold for place in places[2:]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("change", ["early", "shifted"])
def test_the_simulation_sees_what_is_wrong(change: str) -> None:
    """The test above can fail: one product too early, or a place that overlaps its neighbour."""
    case = Case([Matrix(0, 3, 0), Matrix(3, 2, 1), Matrix(5, 2, 2)], capacity=5, products=3)
    places = list(case.places)
    assert broken(case, tuple(places)) == ""
    place = places[2]
    places[2] = (
        Place(place.start, place.threshold - 1)
        if change == "early"
        else Place(place.start + 2, place.threshold)
    )
    assert broken(case, tuple(places)) != ""


@pytest.mark.parametrize("seed", range(60))
def test_parts_are_whole_units_that_leave_room_for_the_next(seed: int) -> None:
    """Catches tiles lost between parts, parts that begin within a unit, and parts so large that
    the next one cannot come while they are read.
    """
    draw = random.Random(f"parts {seed}")
    tiles, words, unit = draw.randint(1, 90), draw.randint(1, 40), draw.choice([1, 1, 2, 3, 7])
    capacity = draw.choice([16, 100, 1000, 5000])
    found = parts(tiles, words, capacity, unit=unit)
    assert [tile for part in found for tile in part] == list(range(tiles))
    for part in found:
        assert part.start % unit == 0
        assert len(part) * words <= capacity // 2 or len(part) <= unit
    # no more parts than it takes
    assert all((len(part) + unit) * words > capacity // 2 for part in found[:-1])


def test_a_matrix_that_nothing_hides_comes_in_more_parts() -> None:
    """Eight, of at least `fewest` tiles, and only if it has 512 words."""
    assert [len(part) for part in parts(80, 7, 10_000, fewest=4)] == [10] * 8
    assert [len(part) for part in parts(80, 7, 10_000, fewest=32)] == [32, 32, 16]
    assert [len(part) for part in parts(80, 6, 10_000, fewest=4)] == [80]
    assert [len(part) for part in parts(80, 7, 70, fewest=4)] == [5] * 16
