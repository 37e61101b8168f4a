"""docs/optical_devices.md says what its generator computes, which is what was measured earlier."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.optical_devices import (
    DETERMINISTIC,
    PAGE,
    SCHEMES,
    deterministic,
    measured,
    schemes,
)

# An independent script's errors of the same scene, before this code existed.
PUBLISHED: dict[str, dict[float, float]] = {
    "input amplitude levels": {4: 3.8e-2, 6: 9.1e-3, 8: 2.2e-3, 10: 5.6e-4},
    "mask amplitude levels": {4: 2.1e-2, 6: 3.4e-3, 8: 9.8e-4, 10: 2.6e-4},
    "mask phase levels": {4: 1.0e-1, 6: 5.4e-2, 8: 2.8e-3, 10: 1.1e-3},
    "camera ADC (on intensity)": {6: 3.0e-2, 8: 7.4e-3, 10: 1.8e-3, 12: 4.5e-4},
    "shot noise": {1e2: 2.9e-1, 1e3: 9.1e-2, 1e4: 2.9e-2, 1e5: 9.0e-3, 1e6: 2.9e-3},
    "shot noise and 5 e- read noise": {1e2: 4.6e-1, 1e3: 9.6e-2, 1e4: 2.9e-2, 1e5: 9.2e-3},
    "mask shift, samples of 256": {0.5: 2.9e-4, 1: 1.2e-3, 2: 4.7e-3, 4: 1.9e-2},
    "camera shift, pixels": {0.05: 5.8e-2, 0.1: 1.2e-1, 0.25: 2.8e-1, 0.5: 5.5e-1, 1: 9.1e-1},
}


@pytest.mark.parametrize(
    ("effect", "amount", "published"),
    [(effect, a, e) for effect, row in PUBLISHED.items() for a, e in row.items()],
)
def test_every_error_is_the_published_one(effect: str, amount: float, published: float) -> None:
    """Acceptance 6: within a factor 1.5 on the same scene."""
    assert published / 1.5 < measured(effect, amount) < published * 1.5


def test_levels_and_shifts_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *DETERMINISTIC, deterministic()) == page


def test_schemes_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *SCHEMES, schemes()) == page
