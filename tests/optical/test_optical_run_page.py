"""The page of models through the optics shows the figures kept, and they hold together."""

from __future__ import annotations

import pytest
import torch

from vitruvius.benchmarks import optical_run
from vitruvius.benchmarks.optical_run import PAGE, TABLES, cell_of, devices, load, tables
from vitruvius.optical.options import DeviceOptions
from vitruvius.optical.run import run_cell


def test_the_page_has_the_figures_that_are_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, lines in tables(load()).items():
        begin, end = TABLES[name]
        assert page.partition(begin)[2].partition(end)[0].strip().splitlines() == lines


def test_ideal_devices_are_as_good_as_pytorch_and_darkness_hurts() -> None:
    sweeps = load()["sweep"]
    assert set(optical_run.WHOLE_GRID) <= set(sweeps)
    for found in sweeps.values():
        ideal = found[cell_of(DeviceOptions())]
        assert (ideal["agree"], ideal["correct"]) == (found["images"], found["exact"])
        errors = [found[cell_of(devices(n, 8, 12))]["logit_error"] for n in (1e5, 1e4, 1e3, 1e2)]
        assert errors == sorted(errors)


def test_layers_agree_where_devices_are_ideal() -> None:
    for rows in load()["layers"].values():
        for row in rows:
            noisy = row["layer"].endswith("devices")
            assert (row["logit_error"] < 1e-5) != noisy


@pytest.mark.slow
def test_a_cell_computed_again_is_the_one_that_is_kept() -> None:
    torch.set_num_threads(1)
    it = optical_run.traced("vit_digits")
    assert it is not None
    options = devices(1e3, 8, 12)
    count = optical_run.IMAGES["digits"]
    found = run_cell(
        it.graph,
        it.placed,
        options,
        it.data.test_images[:count],
        it.data.calibration_images[: optical_run.CALIBRATION],
        labels=it.data.test_labels[:count],
    )
    kept = load()["sweep"]["vit_digits"][cell_of(options)]
    assert found.logit_error == pytest.approx(kept["logit_error"], rel=0.05)
    assert abs(found.agree - kept["agree"]) <= 4
