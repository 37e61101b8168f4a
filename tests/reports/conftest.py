"""A small report whose every number is made up and known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.reports.demo import DemoReport, OperatorKind, Sample
from vitruvius.sim.cosim import CosimReport
from vitruvius.sim.estimate import Assumption, Estimate, OperatorCost


def sample(index: int = 0, rtl: tuple[int, ...] = (5, -300, 7)) -> Sample:
    return Sample(
        index=index,
        label=0,
        pixels=((0.0, 1.0), (0.5, 0.25)),
        float_logits=(0.0512, -3.01, 0.07),
        integer_codes=(5, -300, 7),
        rtl_codes=rtl,
        scale=0.01,
    )


COSIM = CosimReport(
    model="tiny <model>",
    machine="small",
    engine="native",
    memory=MemoryModel(latency=100),
    timed=True,
    images=3,
    bit_exact_images=3,
    cycles=3500,
    predicted_cycles=[1300, 1100, 1100],
    rtl_cycles=[1300, 1100, 1100],
    counters={"CYCLES": (3500, 3500), "PRODUCT_CYCLES": (900, 900)},
    cycles_per_s=123_456.0,
    build_s=12.0,
    wall_s=34.0,
    logits=[[5, -300, 7]] * 3,
    tensors_compared=27,
    mismatches=(),
)

ESTIMATE = Estimate(
    model="tiny <model>",
    target="fpga:zcu102",
    machine="small",
    cycles=1234,
    latency_s=6.17e-6,
    energy_j=4.56e-6,
    clock_hz=2e8,
    macs=40_000,
    utilisation=0.506,
    operators=(
        OperatorCost(
            "blocks.0.fc", "Linear", 1000, 5e-6, 4e-6, 40_000, 0.6, 2048, 0, "products",
            "simulated: cycles", 750, {"WAIT_FETCHED": 240, "SWITCH_CYCLES": 10},
        ),
        OperatorCost(
            "head", "Linear", 200, 1e-6, 5e-7, 100, 0.1, 64, 0, "products", "simulated: cycles", 200
        ),
    ),
    assumptions=(Assumption("a product costs 1 pJ", "published: a & b, 2014"),),
    warnings=("the port is narrow",),
    unmapped=(("host_part", "no rule for it"),),
)  # fmt: skip


@pytest.fixture
def cosim() -> CosimReport:
    return COSIM


@pytest.fixture
def estimate() -> Estimate:
    return ESTIMATE


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    return sample


@pytest.fixture
def report() -> DemoReport:
    return DemoReport(
        multipliers=64,
        operators=(OperatorKind("Linear", 2, 40_000, 4_100), OperatorKind("View", 3, 0, 0)),
        test_images=360,
        float_accuracy=0.9917,
        integer_accuracy=0.9889,
        cosim=COSIM,
        estimate=ESTIMATE,
        samples=(sample(0), sample(4)),
        versions=(("vitruvius", "0.1.0"), ("torch", "2.13.0")),
    )


@pytest.fixture
def spoilt(report: DemoReport) -> DemoReport:
    """The last image took a cycle more and has a wrong bit."""
    cosim = replace(COSIM, bit_exact_images=2, rtl_cycles=[1300, 1100, 1101])
    return replace(report, cosim=cosim, samples=(sample(2, rtl=(5, -300, 8)),))
