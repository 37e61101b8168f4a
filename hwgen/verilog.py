"""Verilog text of a component, the same bytes on every run and on every machine."""

from __future__ import annotations

import re

from amaranth.back import verilog
from amaranth.lib import wiring

from .ram import RAM_MODULE, RAM_VERILOG
from .units.packed_product import PRODUCT_MODULE, PRODUCT_VERILOG

__all__ = ["to_verilog"]

# A signal of no bits, such as the number of the only slot: nothing drives or reads it, but Verilog
# has no such thing and would make it two bits wide. With the attributes before it.
_EMPTY = re.compile(r"(?:^ *\(\*.*\*\)\n)*^ *wire \[-1:0\] \S+ *;\n", re.MULTILINE)


def to_verilog(component: wiring.Component, name: str) -> str:
    """The component and all below it as Verilog-2005, its top module called ``name``.

    Ports are the members of the component's signature, nested ones joined with ``__``, and ``clk``
    and ``rst``. Source locations are left out: they would name this machine's folders.
    """
    text = _EMPTY.sub(
        "", str(verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True))
    )
    modules = {RAM_MODULE: RAM_VERILOG, PRODUCT_MODULE: PRODUCT_VERILOG}
    return text + "".join(body for name, body in modules.items() if f"{name} #(" in text)
