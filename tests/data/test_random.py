"""Choices are functions of seed, counters and name; permutations are permutations, and never change."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.data.random import Draws, hash64, permute

GOLDEN_10 = [7, 8, 1, 3, 2, 5, 0, 4, 9, 6]
GOLDEN_18M = [9680394, 8877557, 2093305, 15738801]
GOLDEN_HASH = 15296693672219024282
GOLDEN_DRAWS = [97, 40, 20, 40, 24, 18, 42]


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(n, key):
    places = permute(np.arange(n), n, np.uint64(key))
    assert np.array_equal(np.sort(places), np.arange(n))
    assert permute(n - 1, n, key) == places[-1]


def test_permute_broadcasts_and_reaches_large_sizes():
    n = np.array([1, 7, 10**6, 18 * 10**6, 2**40 + 3])
    together = permute(n - 1, n, 5)
    assert together.tolist() == [permute(int(size) - 1, int(size), 5) for size in n]
    far = permute(np.arange(10_000), 2**40 + 3, 5)
    assert len(set(far.tolist())) == 10_000


def test_golden_values():
    """A change here changes every run that is resumed or repeated."""
    assert permute(np.arange(10), 10, 1234).tolist() == GOLDEN_10
    assert [permute(i, 18_000_000, 1234) for i in range(4)] == GOLDEN_18M
    assert hash64(1234, "epoch", 0) == GOLDEN_HASH
    draws = Draws(1234, 7)
    assert [draws.integers("a", 100), draws.integers("b", 100), *draws.sample("s", 50, 5)] == GOLDEN_DRAWS


def test_permutations_of_different_keys_are_unlike_and_even():
    n = 97
    starts = permute(np.zeros(20_000, int), n, np.arange(20_000))
    assert np.abs(np.bincount(starts, minlength=n) - 20_000 / n).max() < 6 * (20_000 / n) ** 0.5
    neighbours = (permute(np.full(20_000, 1), n, np.arange(20_000)) - starts) % n
    assert np.abs(np.bincount(neighbours, minlength=n)[1:] - 20_000 / 96).max() < 6 * (20_000 / 96) ** 0.5


def test_draws_are_even_independent_of_order_and_distinct_by_counter():
    first, second = Draws(1, 5), Draws(1, 5)
    assert first.integers("x", 1000) == (second.integers("y", 1000), second.integers("x", 1000))[1]
    values = [Draws(1, i).integers("x", 8) for i in range(8000)]
    assert np.abs(np.bincount(values, minlength=8) - 1000).max() < 6 * 1000**0.5
    assert (
        len({(Draws(1, i).integers("x", 2**32), Draws(2, i).integers("x", 2**32)) for i in range(500)}) == 500
    )
    assert Draws(1, "5").integers("x", 2**32) != Draws(1, 5).integers("x", 2**32)
    assert 0 <= Draws(1, 2).uniform("u") < 1
    assert Draws(3).choice("c", ["only"]) == "only"


@given(n=st.integers(0, 30), k=st.integers(0, 35), counter=st.integers(0, 1000))
def test_sample_is_without_replacement(n, k, counter):
    chosen = Draws(1, counter).sample("s", n, k)
    assert len(chosen) == len(set(chosen)) == min(n, k)
    assert set(chosen) <= set(range(n))
