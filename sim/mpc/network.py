"""Networks between the parties: how long rounds and bytes take.

Two readings of a round are in use, and differ by a factor of two: both parties send at once, and
the next round begins when the other's words are there (``overlap``, half the ping); or a party
waits until its words are acknowledged (``acknowledged``, the ping).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import VitruviusError, nearest
from .traffic import Traffic

__all__ = ["READINGS", "Network", "Reading", "load_network", "network_names"]

_SHIPPED = Path(__file__).parent / "networks"
Reading = Literal["overlap", "acknowledged"]
READINGS: tuple[Reading, ...] = ("overlap", "acknowledged")


class Network(BaseModel):
    """A network between two parties.

    bandwidth_bit_s: in each direction. ping_s: there and back. efficiency: the share of the
    bandwidth that payload gets. reading: of a round, for the latency that is reported first.
    source: who says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    bandwidth_bit_s: float = Field(gt=0, le=1e15, allow_inf_nan=False)
    ping_s: float = Field(gt=0, le=3600, allow_inf_nan=False)
    efficiency: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    reading: Reading = "overlap"
    source: str = Field(min_length=1)

    @property
    def bytes_s(self) -> float:
        """Payload bytes a second in one direction."""
        return self.bandwidth_bit_s * self.efficiency / 8

    def round_s(self, reading: Reading | None = None) -> float:
        """Seconds of one round, without its bytes."""
        return self.ping_s if (reading or self.reading) == "acknowledged" else self.ping_s / 2

    def transfer_s(self, traffic: Traffic) -> float:
        """Seconds that the bytes take: both directions at once, the longer one counts."""
        return max(traffic.bytes_sent, traffic.bytes_received) / self.bytes_s

    def latency_s(self, traffic: Traffic, reading: Reading | None = None) -> float:
        """Seconds of rounds and bytes, one after another.

        >>> round(load_network("wan").latency_s(Traffic(10, 5_000_000, 5_000_000)), 6)
        0.3
        """
        return traffic.rounds * self.round_s(reading) + self.transfer_s(traffic)


def network_names() -> list[str]:
    """Names of the shipped networks, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_network(name: str) -> Network:
    """The shipped network called ``name``, or the one in the TOML file of that path.

    Raises VitruviusError for an unknown name, an unreadable file, or a figure that is missing, not
    a number, zero or negative, naming field and file.

    >>> load_network("lan").ping_s
    0.0003
    """
    if name in network_names():
        path = _SHIPPED / f"{name}.toml"
    elif name.endswith(".toml"):
        path = Path(name)
    else:
        raise VitruviusError(
            f"unknown network '{name}': {nearest(name, network_names())}, or a TOML file"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise VitruviusError(f"network file {path} cannot be read: {reason}") from error
    fields.setdefault("name", path.stem)
    try:
        return Network.model_validate(fields)
    except ValidationError as error:
        texts = [_sentence(problem) for problem in error.errors()]
        raise VitruviusError(f"network file {path}: {'; '.join(texts)}") from error


_EXPECTED = {
    "bandwidth_bit_s": "bits a second, more than 0 and at most 1e15",
    "ping_s": "seconds, more than 0 and at most 3600",
    "efficiency": "a share, more than 0 and at most 1",
    "reading": "overlap or acknowledged",
    "source": "a text",
    "name": "a word",
}


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such field, {nearest(field, Network.model_fields)}"
    if problem["type"] == "missing":
        return f"{field}: missing, expected {_EXPECTED[field]}"
    return f"{field}: expected {_EXPECTED.get(field, 'another value')}, got {problem['input']!r}"
