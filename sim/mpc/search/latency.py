"""What one image costs on a protocol over a network, for any config of the family."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ....models.trace import trace
from ....models.zoo.mpcvit import MpcVit
from ....models.zoo.mpcvit_config import MpcVitConfig
from ..network import Network
from ..operators import mpc_traffic
from ..options import MpcOptions
from ..protocols import Protocol
from ..traffic import Traffic

__all__ = ["Cost", "Place"]


@dataclass(frozen=True)
class Cost:
    """Rounds, bytes that one party sends, and seconds, of one image; online only."""

    rounds: int
    bytes_sent: int
    latency_s: float


@dataclass(frozen=True)
class Place:
    """A protocol over a network, with the protocol's options."""

    protocol: Protocol
    network: Network
    options: MpcOptions = MpcOptions()
    _known: dict[MpcVitConfig, Cost] = field(default_factory=dict, compare=False, repr=False)

    def cost(self, config: MpcVitConfig) -> Cost:
        """The cost of a model of this config, from its graph; local computation is left out."""
        if config not in self._known:
            self._known[config] = self._counted(config)
        return self._known[config]

    def latency_s(self, config: MpcVitConfig) -> float:
        """The seconds of ``cost``."""
        return self.cost(config).latency_s

    def _counted(self, config: MpcVitConfig) -> Cost:
        with torch.random.fork_rng(devices=[]):
            module = MpcVit(config).eval()
        graph = trace(module, (torch.zeros(config.input_shape),), name="mpcvit")
        total = Traffic()
        for traffic in mpc_traffic(graph, self.protocol, self.options).values():
            total = total + traffic.online
        return Cost(total.rounds, total.bytes_sent, self.network.latency_s(total))
