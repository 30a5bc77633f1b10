"""Randomness as a pure function of (seed, purpose, index).

Philox is counter based: every key gives an independent stream, so item 7 is the same bits alone,
in any batch, in any order and on any number of workers (Salmon et al., SC 2011).
"""

from __future__ import annotations

import hashlib

import numpy as np


def _digest(seed: int, purpose: str, index: int) -> bytes:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    if index < 0:
        raise ValueError(f"index must not be negative, got {index}")
    return hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()


def keyed_rng(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator of item ``index`` of the stream ``purpose``.

    Args:
        seed: user's seed in [0, 2**64).
        purpose: what the numbers are for, e.g. ``"conditions"``; other purposes are independent.
        index: item number, from 0.
    """
    key = int.from_bytes(_digest(seed, purpose, index)[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def keyed_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 63-bit seed for other generators (``torch.Generator().manual_seed``)."""
    return int.from_bytes(_digest(seed, purpose, index)[16:24], "little") >> 1
