"""What a protocol is: how many parties hold what, and what each function makes them exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ....errors import VitruviusError
from ..options import MpcOptions
from ..traffic import OperatorTraffic, Traffic
from .functions import FUNCTIONS, Shape, checked

__all__ = ["Dealer", "Protocol"]

Dealer = Literal["ttp", "tfp", "none"]
"""Who makes the random products that secret multiplication uses up: a trusted third party that
takes no part in the computation, the first party (for benchmarks only), or nobody."""


class Protocol(BaseModel, ABC):
    """A protocol and its parameters.

    parties: how many hold shares; ring_bits: numbers are modulo 2^ring_bits; fraction_bits: behind
    the binary point; dealer: see ``Dealer``. choices: the options that the protocol has, with the
    values that it takes; an option that is not among them stays at its default, which then stands
    for the protocol's own way, told in ``own``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    choices: ClassVar[Mapping[str, tuple[str, ...]]]
    own: ClassVar[Mapping[str, str]] = {}
    dealers: ClassVar[tuple[Dealer, ...]]

    parties: int
    ring_bits: int = 64
    fraction_bits: int = Field(ge=1, le=60)
    dealer: Dealer

    def traffic(
        self, function: str, shapes: tuple[Shape, ...], options: MpcOptions | None = None
    ) -> OperatorTraffic:
        """What one party exchanges for ``function`` on operands of these shapes.

        Raises VitruviusError for a function that the protocol has no figures for, shapes that do
        not fit, or an option that the protocol does not have.

        >>> from vitruvius.sim.mpc.protocols import load_protocol
        >>> load_protocol("crypten").traffic("relu", ((1024,),)).online.sent_and_received
        475136
        """
        options = MpcOptions() if options is None else options
        self.check(options)
        shapes = checked(function, shapes)
        if function not in self.functions():
            raise VitruviusError(
                f"protocol {self.name} has no figures for {function} ({FUNCTIONS[function].text}); "
                f"it has: {', '.join(sorted(self.functions()))}"
            )
        return self._cost(self.functions()[function], shapes, options)

    @property
    def setup(self) -> Traffic:
        """What one party exchanges once, before the first image; nothing in most protocols."""
        return Traffic()

    def check(self, options: MpcOptions) -> None:
        """Raises VitruviusError naming every option that the protocol does not have."""
        default = MpcOptions()
        wrong = []
        for field in type(options).model_fields:
            value = getattr(options, field)
            if field == "fraction_bits":
                if value not in (None, self.fraction_bits) and field not in self.choices:
                    wrong.append(f"fraction_bits is {self.fraction_bits}, got {value}")
            elif value != getattr(default, field) and value not in self.choices.get(field, ()):
                taken = sorted({getattr(default, field), *self.choices.get(field, ())})
                wrong.append(f"{field} is {' or '.join(taken)}, got {value}")
        if wrong:
            raise VitruviusError(f"protocol {self.name}: {'; '.join(wrong)}")

    @abstractmethod
    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that the protocol has figures for."""

    @abstractmethod
    def _cost(
        self, function: Callable[..., object], shapes: tuple[Shape, ...], options: MpcOptions
    ) -> OperatorTraffic: ...
