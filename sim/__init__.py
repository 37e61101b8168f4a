"""What it costs: cycle simulation, energy, and co-simulation of the generated Verilog."""
