"""How hardware computes it: Amaranth units, the accelerator, the compiler to a Program, Verilog out."""
