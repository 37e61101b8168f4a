"""Random words: shares and masks, stretched from a seed by AES-256 in counter mode."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

__all__ = ["SEED_BYTES", "RandomStream", "fresh_seed"]

SEED_BYTES = 32
_WORD = 8
_ZEROS = bytes(1 << 20)


def fresh_seed(test_seed: int | None = None, purpose: str = "") -> bytes:
    """32 bytes of the operating system's generator; or, of tests only, what ``test_seed`` and
    ``purpose`` give, the same every time and therefore no secret.
    """
    if test_seed is None:
        return os.urandom(SEED_BYTES)
    return hashlib.sha256(f"{test_seed}:{purpose}".encode()).digest()


class RandomStream:
    """Words that look uniform to everybody who does not have ``seed`` (32 bytes). Streams of the
    same seed give the same words in the same order.
    """

    def __init__(self, seed: bytes) -> None:
        self._stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()

    def words(self, shape: Sequence[int]) -> Tensor:
        """Uniform int64 of ``shape``."""
        buffer = np.empty(_WORD * math.prod(shape), np.uint8)
        view = buffer.data
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._stream.update_into(memoryview(_ZEROS)[: len(part)], part)
        return torch.from_numpy(buffer.view(np.int64)).reshape(tuple(shape))

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Uniform 0 or 1 of ``shape``, a word each."""
        return self.words(shape) & 1
