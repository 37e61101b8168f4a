"""What every test shares: results that do not depend on the machine's number of cores."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Give each xdist worker one torch thread; several would compete for the same cores."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
