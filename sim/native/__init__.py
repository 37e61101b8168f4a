"""Co-simulation in which C++ holds the clock and the memory; Python starts, waits and compares.

A compiled harness drives the Verilated accelerator pin by pin: an AXI4 memory with stated timing,
a host on the AXI4-Lite port that follows a script, and checks of the bus rules in every cycle.
"""
