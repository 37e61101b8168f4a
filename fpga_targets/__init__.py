"""Where it runs: devices and their counts, energy coefficients, and out-of-context synthesis.

``device`` and ``energy`` are data that every other folder may read; ``synthesis`` is a flow above
``hwgen``, so nothing is imported here.
"""
