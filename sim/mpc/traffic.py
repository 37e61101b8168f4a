"""What a party exchanges with the others: rounds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOTHING", "OperatorTraffic", "Traffic"]


@dataclass(frozen=True)
class Traffic:
    """Rounds that one party takes part in, and the bytes that it sends and receives in them.

    Two conventions are in use for the bytes: CrypTen counts what a party sends and receives
    together, SPU what it sends.
    """

    rounds: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def sent_and_received(self) -> int:
        """Bytes as CrypTen's communicator counts them."""
        return self.bytes_sent + self.bytes_received

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.rounds + other.rounds,
            self.bytes_sent + other.bytes_sent,
            self.bytes_received + other.bytes_received,
        )


@dataclass(frozen=True)
class OperatorTraffic:
    """What one operator exchanges with the image at hand (``online``), and what a dealer sends
    ahead to the party that receives most (``offline``).
    """

    online: Traffic = Traffic()
    offline: Traffic = Traffic()

    def __add__(self, other: OperatorTraffic) -> OperatorTraffic:
        return OperatorTraffic(self.online + other.online, self.offline + other.offline)


NOTHING = OperatorTraffic()
