"""The streaming accelerator: engines that run programs of their own, at the same time.

The product engine issues words to the shared compute unit, the norm engine follows the residual
stream, the fetch engine brings weights and images from memory. They wait for each other by counters
that only grow (`counters`); nothing else couples them, and every memory has one writer.
"""
