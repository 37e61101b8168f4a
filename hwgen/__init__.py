"""How hardware computes it: Amaranth units, the accelerator, the compiler, Verilog out."""
