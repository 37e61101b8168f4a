"""Where secure inference runs: a protocol, a network, and the choices that are open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import VitruviusError, nearest
from ...models.graph import Graph
from .network import Network, Reading, load_network, network_names
from .options import MpcOptions
from .protocols import PROTOCOLS, Protocol, load_protocol
from .protocols.protocol import Dealer
from .replacements import ActivationReplacement, SoftmaxReplacement, replaced

__all__ = [
    "MpcSettings",
    "MpcTarget",
    "load_mpc",
    "mpc_settings",
    "mpc_targets",
    "setting_values",
]

_PREFIX = "mpc:"


class MpcSettings(BaseModel):
    """What a user may set: the options of the protocol, replacements of softmax and GELU, parties,
    dealer, and how a round is read. None leaves what the model, protocol or network has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: MpcOptions = MpcOptions()
    softmax: SoftmaxReplacement | None = None
    gelu: ActivationReplacement | None = None
    parties: int | None = None
    dealer: Dealer | None = None
    round: Reading | None = None

    def record(self) -> dict[str, object]:
        """All settings as plain values, without what is left as it is."""
        own = self.model_dump(exclude={"options"}, exclude_none=True)
        replacement = {"gelu replaced by": own.pop("gelu")} if self.gelu else {}
        return self.options.model_dump(exclude_none=True) | own | replacement


@dataclass(frozen=True)
class MpcTarget:
    """A protocol on a network, under settings; ``name`` is what the user gave."""

    name: str
    protocol: Protocol
    network: Network
    settings: MpcSettings

    @property
    def options(self) -> MpcOptions:
        """The options of the protocol."""
        return self.settings.options

    def prepared(self, graph: Graph) -> Graph:
        """The graph with the replacements of the settings."""
        return replaced(graph, softmax=self.settings.softmax, gelu=self.settings.gelu)


def mpc_targets() -> list[str]:
    """Names of all protocols on all shipped networks."""
    return [f"{_PREFIX}{name}-{network}" for name in PROTOCOLS for network in network_names()]


def load_mpc(spec: str, settings: MpcSettings | None = None) -> MpcTarget:
    """The target called ``mpc:PROTOCOL-NETWORK`` or ``mpc:PROTOCOL:FILE.toml``.

    Raises VitruviusError for an unknown protocol or network, a network with bad figures, or
    settings that the protocol does not have.

    >>> load_mpc("mpc:semi2k-wan").network.ping_s
    0.04
    """
    chosen = MpcSettings() if settings is None else settings
    rest = spec.removeprefix(_PREFIX)
    mark = ":" if ":" in rest else "-"
    name, _, network = rest.partition(mark)
    if name not in PROTOCOLS or not network:
        known = [f"{_PREFIX}{one}-{two}" for one in PROTOCOLS for two in ("lan", "wan")]
        raise VitruviusError(
            f"unknown target '{spec}': {nearest(spec, known)}; other networks: "
            f"{', '.join(name for name in network_names() if name not in ('lan', 'wan'))}, or "
            f"{_PREFIX}PROTOCOL:FILE.toml"
        )
    protocol = load_protocol(name, parties=chosen.parties, dealer=chosen.dealer)
    protocol.check(chosen.options)
    link = load_network(network)
    if chosen.round is not None:
        link = link.model_copy(update={"reading": chosen.round})
    return MpcTarget(spec, protocol, link, chosen)


def mpc_settings(texts: Sequence[str]) -> MpcSettings:
    """Settings from ``KEY=VALUE`` with commas between them. ``gelu`` takes ways to compute it as
    well as replacements.

    Raises VitruviusError naming every key that is unknown or has a value that it does not take.

    >>> mpc_settings(["maximum=tree,gelu=quad"]).gelu
    'quad'
    """
    options: dict[str, str] = {}
    others: dict[str, str] = {}
    wrong = []
    values = setting_values()
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise VitruviusError(f"--mpc: expected KEY=VALUE, got '{part}'")
        if key not in values:
            raise VitruviusError(f"--mpc: no setting '{key}', {nearest(key, values)}")
        if key in options or key in others:
            raise VitruviusError(f"--mpc: {key} is given more than once")
        replacing = key == "gelu" and value in get_args(ActivationReplacement)
        place = options if key in MpcOptions.model_fields and not replacing else others
        place[key] = value
        known = values[key].split(", ")
        counted = key in _COUNTS and value.isdecimal()
        if not counted and value not in known:
            wrong.append(f"{key}: expected {values[key]}, got '{value}'")
    if not wrong:
        try:
            return MpcSettings.model_validate({"options": options, **others})
        except ValidationError as error:
            for problem in error.errors():
                key = str(problem["loc"][-1])
                wrong.append(f"{key}: expected {values[key]}, got '{problem['input']}'")
    raise VitruviusError(f"--mpc: {'; '.join(wrong)}")


_COUNTS = {"fraction_bits": "a whole number from 1 to 60", "parties": "a whole number"}


def setting_values() -> dict[str, str]:
    """Every setting with the values that it takes, in words."""
    found: dict[str, list[str]] = {}
    for model in (MpcOptions, MpcSettings):
        for key, info in model.model_fields.items():
            if key != "options":
                found[key] = found.get(key, []) + _literals(info.annotation)
    return {key: _COUNTS.get(key) or ", ".join(words) for key, words in found.items()}


def _literals(annotation: object) -> list[str]:
    found: list[str] = []
    for item in get_args(annotation):
        found += [item] if isinstance(item, str) else _literals(item)
    return found
