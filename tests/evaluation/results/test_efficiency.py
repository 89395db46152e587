"""What an evaluation took, from the records of its parts."""

import jax
import jax.numpy as jnp
import pytest

from iml.evaluation.results.efficiency import Clock, summary


def test_parts_are_added_up_and_divided_by_their_time():
    spent = [
        {"kind": "rank", "seconds": 2.0, "requests": 10, "characters": 400, "candidates": 20},
        {"kind": "rank", "seconds": 3.0, "requests": 5, "characters": 100, "candidates": 10},
        {"kind": "generate", "seconds": 4.0, "requests": 2, "characters": 50, "tokens": 100},
    ]
    kinds = summary(spent)["kinds"]
    assert kinds["rank"]["requests_per_second"] == 3 and kinds["rank"]["candidates_per_second"] == 6
    assert kinds["generate"]["tokens_per_second"] == 25 and "candidates" not in kinds["generate"]
    assert summary([]) == {"kinds": {}}


def test_compilation_is_told_apart():
    clock = Clock()
    with clock.phase("answer"):
        jax.jit(lambda x: jnp.sin(x) * 3.14159 + 2)(jnp.ones(7)).block_until_ready()
    found = summary([], clock)
    assert found["compile"]["programs"] >= 1
    assert 0 < found["compile"]["seconds"] <= found["phases"]["answer"]
    before = clock.programs
    jax.jit(lambda x: jnp.cos(x) * 2.71828 + 2)(jnp.ones(7)).block_until_ready()
    assert clock.programs == before


def test_a_phase_that_fails_is_timed_and_its_listener_gone():
    clock = Clock()
    with pytest.raises(KeyError), clock.phase("load"):
        raise KeyError
    assert clock.seconds["load"] >= 0
