"""Our fields beside torchoptics', and the page that says how far they are apart."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.optical_waves import (
    CASES,
    PAGE,
    WAVES,
    case,
    difference,
    torchoptics_field,
)

# torchoptics against conv2d, measured by an independent script before this code existed
EARLIER = {
    "critical, exact": 3.6e-2,
    "one sample a pixel, padded": 0.24,
    "one sample a pixel, padded, round lens": 0.38,
    "5 samples a pixel, no compensation": 0.15,
}


@pytest.mark.parametrize("name", [name for name in CASES if "5 samples" not in name])
def test_the_fields_are_those_of_torchoptics(name: str) -> None:
    setup = case(name)
    ours = setup.system.camera_field(setup.field, setup.mask)
    assert difference(ours, torchoptics_field(setup)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if "5 samples" in name])
def test_pixelated_fields_are_those_of_torchoptics(name: str) -> None:
    setup = case(name)
    ours = setup.system.camera_field(setup.field, setup.mask)
    assert difference(ours, torchoptics_field(setup)) < 1e-9


@pytest.mark.parametrize("name", [name for name in EARLIER if "5 samples" not in name])
def test_errors_are_those_that_torchoptics_had(name: str) -> None:
    setup = case(name)
    error = setup.error(setup.system.camera_field(setup.field, setup.mask))
    assert error == pytest.approx(EARLIER[name], rel=0.1)


@pytest.mark.slow
def test_uncompensated_pixels_err_as_torchoptics_did() -> None:
    name = "5 samples a pixel, no compensation"
    setup = case(name)
    error = setup.error(setup.system.camera_field(setup.field, setup.mask))
    assert error == pytest.approx(EARLIER[name], rel=0.1)


def test_the_page_has_a_row_for_every_set_up_with_the_errors_of_this_code() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(WAVES[0])[2].partition(WAVES[1])[0]
    rows = {
        cells[1].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) > 6
    }
    assert set(CASES) <= set(rows)
    for name in EARLIER:
        if "5 samples" not in name:
            setup = case(name)
            error = setup.error(setup.system.camera_field(setup.field, setup.mask))
            assert rows[name][3].strip() == f"{error:.1e}"
    assert all(float(rows[name][5]) < 1e-9 for name in CASES)
