"""Networks, both readings of a round, and figures that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.mpc.network import load_network, network_names
from vitruvius.sim.mpc.traffic import Traffic


def test_shipped_networks_have_sources() -> None:
    names = network_names()
    assert {"lan", "wan", "mpcvit-fit"} <= set(names)
    for name in names:
        network = load_network(name)
        assert network.name == name
        assert network.source.startswith(("published: ", "assumed: ", "fit: "))


def test_cheetahs_wan_in_both_readings() -> None:
    """400 Mbit/s and 40 ms: 100 rounds and 50 MB one way."""
    wan = load_network("wan")
    traffic = Traffic(100, 50_000_000, 20_000_000)
    assert wan.latency_s(traffic) == pytest.approx(100 * 0.020 + 1.0)
    assert wan.latency_s(traffic, "acknowledged") == pytest.approx(100 * 0.040 + 1.0)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "office.toml"
    path.write_text(
        'bandwidth_bit_s = 1e9\nping_s = 0.002\nefficiency = 0.5\nsource = "measured"\n'
    )
    office = load_network(str(path))
    assert office.name == "office"
    assert office.transfer_s(Traffic(0, 62_500_000, 0)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bandwidth_bit_s = 0\nping_s = 1", "bandwidth_bit_s: expected bits a second, more than 0"),
        ("bandwidth_bit_s = 1e9\nping_s = -1", "ping_s: expected seconds, more than 0.*got -1"),
        ("bandwidth_bit_s = nan\nping_s = 1", "bandwidth_bit_s: expected bits.*got nan"),
        ("bandwidth_bit_s = inf\nping_s = 1", "bandwidth_bit_s: expected bits.*got inf"),
        ('bandwidth_bit_s = "fast"\nping_s = 1', "bandwidth_bit_s: expected bits.*got 'fast'"),
        ("bandwidth_bit_s = 1e9", "ping_s: missing, expected seconds"),
        ("bandwidth_bit_s = 1e9\nping_s = 1\nefficiency = 2", "efficiency: expected a share"),
        ("bandwidth_bit_s = 1e9\nping_s = 1\nlatency = 2", "latency: no such field"),
        ("bandwidth_bit_s = 1e9\nping_s = 1\nreading = 'slow'", "reading: expected overlap or ack"),
        ("bandwidth_bit_s = ", "cannot be read"),
    ],
)
def test_bad_figures_are_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text + ('\nsource = "me"\n' if "cannot" not in expected else "\n"))
    with pytest.raises(VitruviusError, match=expected) as caught:
        load_network(str(path))
    assert "bad.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(VitruviusError, match="unknown network 'wam': did you mean 'wan'"):
        load_network("wam")
    with pytest.raises(VitruviusError, match="cannot be read"):
        load_network("nowhere.toml")
