"""Counter-based randomness: every choice is a function of a seed, counters and the choice's name.

Nothing here keeps state, so a choice is the same on any host, in any thread and in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def hash64(*parts: int | str) -> int:
    """A 64-bit hash of integers and strings, the same on every platform; 1 and "1" differ."""
    text = "\0".join(f"{type(part).__name__[0]}{len(str(part))}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Draws:
    """Named random choices that belong to one (seed, *counters)."""

    __slots__ = ("_key",)

    def __init__(self, seed: int, *counters: int | str):
        self._key = hash64(int(seed), *counters).to_bytes(8, "little")

    def integers(self, name: str, n: int) -> int:
        """Uniform in [0, n); n up to 2**32, where the bias of the remainder is below 2**-32."""
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "little") % n

    def uniform(self, name: str) -> float:
        """Uniform in [0, 1)."""
        return self.integers(name, 1 << 53) / (1 << 53)

    def choice(self, name: str, items: Sequence[_Item]) -> _Item:
        """One of the items."""
        return items[self.integers(name, len(items))] if len(items) > 1 else items[0]

    def sample(self, name: str, n: int, k: int) -> list[int]:
        """min(n, k) distinct numbers of range(n) in random order (Fisher-Yates over a sparse array)."""
        moved: dict[int, int] = {}
        chosen = []
        for i in range(min(n, k)):
            j = i + self.integers(f"{name}:{i}", n - i)
            chosen.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return chosen

    def key(self, name: str) -> int:
        """A 64-bit key for `permute`."""
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=self._key).digest(), "little")


def permute(i, n, key):
    """Place of `i` in a pseudo-random permutation of range(n), without making the permutation.

    A Feistel network permutes the next power of two; numbers that leave range(n) walk on until they are back
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), fewer than two steps on average.

    Args:
      i: integers in [0, n), a scalar or an array.
      n: sizes, up to 2**62, broadcast with i.
      key: unsigned 64-bit keys, broadcast with i.

    Returns:
      int64 array of the broadcast shape; an int if all arguments are scalars.
    """
    if np.ndim(i) == np.ndim(n) == np.ndim(key) == 0:
        return _permute_one(int(i), int(n), int(key))
    value, size, keys = np.broadcast_arrays(
        np.atleast_1d(np.asarray(i, np.uint64)), np.asarray(n, np.uint64), np.asarray(key, np.uint64)
    )
    if np.any(value >= size):
        raise IndexError("permute: i must lie in [0, n)")
    result = _feistel(value, size, keys)
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], size[outside], keys[outside])
        outside = outside[result[outside] >= size[outside]]
    return result.astype(np.int64)


def _permute_one(i: int, n: int, key: int) -> int:
    """`permute` of one number, without numpy's cost of a call."""
    if not 0 <= i < n:
        raise IndexError("permute: i must lie in [0, n)")
    bits = max((n - 1).bit_length(), 2)
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    round_keys = [(key + int(_GOLDEN) * (number + 1)) & _MASK for number in range(_ROUNDS)]
    while True:
        low, high = i & low_mask, i >> low_bits
        for number, round_key in enumerate(round_keys):
            value = (low if number % 2 else high) ^ round_key
            value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
            value ^= value >> 31
            if number % 2:
                high ^= value & high_mask
            else:
                low ^= value & low_mask
        i = (high << low_bits) | low
        if i < n:
            return i


def _feistel(value: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
    """A permutation of [0, 2**bits) where bits suffices for size - 1, elementwise; uint64 in and out."""
    bits = np.maximum(_bit_length(size - np.uint64(1)), 2).astype(np.uint64)
    low_bits = bits // np.uint64(2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << (bits - low_bits)) - np.uint64(1)
    low, high = value & low_mask, value >> low_bits
    for number in range(_ROUNDS):
        # uint64 wraps around, in arrays without a warning, which is what is wanted.
        round_key = key + _GOLDEN * np.full(1, number + 1, np.uint64)
        if number % 2:
            high = high ^ (_mix(low ^ round_key) & high_mask)
        else:
            low = low ^ (_mix(high ^ round_key) & low_mask)
    return (high << low_bits) | low


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _bit_length(value: np.ndarray) -> np.ndarray:
    """Bits that each number needs, 0 for 0; exact, unlike a logarithm in floating point."""
    length = np.zeros(value.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        big = value >= (np.uint64(1) << np.uint64(step))
        value = np.where(big, value >> np.uint64(step), value)
        length += np.where(big, step, 0)
    return length + (value > 0)
