"""Verilog text of a component, the same bytes on every run and on every machine."""

from __future__ import annotations

from amaranth.back import verilog
from amaranth.lib import wiring

from .ram import RAM_MODULE, RAM_VERILOG
from .units.packed_product import PRODUCT_MODULE, PRODUCT_VERILOG

__all__ = ["to_verilog"]


def to_verilog(component: wiring.Component, name: str) -> str:
    """The component and all below it as Verilog-2005, its top module called ``name``.

    Ports are the members of the component's signature, nested ones joined with ``__``, and ``clk``
    and ``rst``. Source locations are left out: they would name this machine's folders.
    """
    text = str(verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True))
    modules = {RAM_MODULE: RAM_VERILOG, PRODUCT_MODULE: PRODUCT_VERILOG}
    return text + "".join(body for name, body in modules.items() if f"{name} #(" in text)
