"""Two parties and a dealer as processes: a trained model whole, and processes that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.parties.local import run_locally
from vitruvius.sim.mpc.parties.roles import NAMES, Task
from vitruvius.sim.mpc.run import run_model

SECONDS = 30


@pytest.fixture(scope="module")
def digits_graph(digits_workload) -> Graph:
    return trace(digits_workload.module, digits_workload.example_inputs, name="vit_digits")


def test_a_trained_model_gives_pytorch_s_labels_and_the_predicted_traffic(
    digits_graph: Graph, digit_images, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed either: what a process logs could be a secret."""
    report = run_model(
        digits_graph,
        digit_images.test_images[:2],
        calibration=digit_images.calibration_images[:16],
        labels=digit_images.test_labels[:2],
    )
    assert report.equal
    assert report.agree == report.correct == 2
    assert report.largest_error < 0.05
    assert (report.rounds, report.bytes_sent, report.offline_bytes) == (
        *(691, 13_957_392),
        7_573_272,
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("maximum", ["reduction", "tree"])
def test_twenty_digits(maximum: str, digits_graph: Graph, digit_images) -> None:
    report = run_model(
        digits_graph,
        digit_images.test_images[:20],
        calibration=digit_images.calibration_images[:32],
        options=MpcOptions.model_validate({"maximum": maximum}),
        labels=digit_images.test_labels[:20],
    )
    assert report.equal
    assert (report.agree, report.correct) == (20, 20)
    assert report.largest_error < 0.1


@pytest.mark.slow
def test_mpcvit_for_cifar_exchanges_what_crypten_does() -> None:
    """1316 rounds and 451,640,192 bytes (sent + received) of one party in CrypTen, whole model with
    softmax, GELU in tanh form and norms without scale (mpc specification, table 3.1); opening the
    ten logits comes on top here.
    """
    from vitruvius.models.datasets import photographs
    from vitruvius.models.zoo.mpcvit import MpcVit
    from vitruvius.models.zoo.mpcvit_config import MpcVitConfig

    torch.manual_seed(0)
    module = MpcVit(MpcVitConfig(norm_affine=False)).eval()
    graph = trace(module, (torch.rand(1, 3, 32, 32),), name="cifar")
    crops = photographs(5, (32, 32))
    report = run_model(graph, crops[:1], calibration=crops[1:])
    assert report.equal
    assert report.rounds == 1316 + 1
    assert report.bytes_sent + report.bytes_received == 451_640_192 + 16 * 10
    assert report.agree == 1
    assert report.largest_error < 0.1


class Slow(nn.Module):
    """Enough rounds that a process can be killed in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.softmax(layer(x), -1)
        return x


@pytest.mark.parametrize(
    "role",
    [
        pytest.param(0, id="model", marks=pytest.mark.slow),
        pytest.param(1, id="image"),
        pytest.param(2, id="dealer", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_killed_ends_the_others(role: int) -> None:
    """In the middle of a run of many images; afterwards no process is left."""
    torch.manual_seed(0)
    graph = trace(Slow(), (torch.rand(1, 16, 32),), name="slow")
    task = Task(MpcOptions(), 16, 500, test_seed=1, timeout_s=20.0)
    images = [[torch.rand(1, 16, 32)]] * 500
    killed: list[float] = []

    def kill(run: int) -> None:
        if run == 2 and not killed:
            by_name = {process.name: process for process in multiprocessing.active_children()}
            killed.append(time.monotonic())
            os.kill(by_name[NAMES[role]].pid, signal.SIGKILL)

    with pytest.raises(VitruviusError) as caught:
        run_locally(graph, task, images, progress=kill)
    assert str(caught.value) == f"{NAMES[role]} died of SIGKILL"
    assert time.monotonic() - killed[0] < SECONDS
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_party_that_stalls_is_given_up() -> None:
    torch.manual_seed(0)
    graph = trace(Slow(), (torch.rand(1, 16, 32),), name="slow")
    task = Task(MpcOptions(), 16, 500, test_seed=1, timeout_s=4.0)
    images = [[torch.rand(1, 16, 32)]] * 500
    stopped: list[int] = []

    def stall(run: int) -> None:
        if run == 2 and not stopped:
            by_name = {process.name: process for process in multiprocessing.active_children()}
            pid = by_name[NAMES[1]].pid
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(12, os.kill, (pid, signal.SIGCONT)).start()

    start = time.monotonic()
    with pytest.raises(
        VitruviusError, match=r"party 1 \(image\) did not answer for 4 s in operator"
    ):
        run_locally(graph, task, images, progress=stall)
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()
