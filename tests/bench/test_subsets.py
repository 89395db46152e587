"""Subsets for the scaling studies: nested, of the size asked for, and with what is always in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import TaskCard
from iml.bench.mixing import Mixture
from iml.bench.subsets import CategorySubset, TaskSubset
from iml.errors import InputError

SIZES = (16, 64, 256, 1024)


def _cards(categories):
    """A task for each entry."""
    return {f"flan.t{i}": TaskCard(f"flan.t{i}", "flan", category) for i, category in enumerate(categories)}


CARDS = _cards(["Other"] * 1531)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), always=st.sets(st.integers(0, 1530), max_size=16))
def test_task_sets_are_nested_and_hold_those_always_in(seed, always):
    names = [f"flan.t{i}" for i in always]
    sets = [set(TaskSubset(size, names, seed).select(CARDS)) for size in SIZES]
    assert [len(chosen) for chosen in sets] == list(SIZES)
    assert set(names) <= sets[0] < sets[1] < sets[2] < sets[3] < set(CARDS)


def test_task_sets_are_even_over_tasks_and_unlike_for_other_seeds():
    drawn = [name for seed in range(300) for name in TaskSubset(16, (), seed).select(CARDS)]
    assert len(set(drawn)) > 1400  # 1531 * (1 - (1 - 16 / 1531) ** 300) = 1466
    assert max(drawn.count(name) for name in set(drawn)) < 16


def test_new_tasks_push_others_out_but_change_no_order():
    few = {name: CARDS[name] for name in sorted(CARDS)[:700]}
    small, large = TaskSubset(64, ()).select(few), TaskSubset(64, ()).select(CARDS)
    assert set(large) & set(few) <= set(small)


def test_sets_larger_than_the_mixture_are_all_of_it():
    assert TaskSubset(10_000).select(CARDS) == tuple(sorted(CARDS))
    assert CategorySubset(10_000).select(CARDS) == tuple(sorted(CARDS))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_category_sets_are_the_largest_and_those_always_in(data):
    tasks = data.draw(st.lists(st.sampled_from("abcdefghijkl"), min_size=30, max_size=200))
    cards = _cards(tasks)
    present = sorted(set(tasks))
    always = data.draw(st.lists(st.sampled_from(present), max_size=3, unique=True))
    size = data.draw(st.integers(max(1, len(always)), 12))
    names = CategorySubset(size, always).select(cards)
    chosen = {cards[name].category for name in names}
    assert len(chosen) == min(size, len(present)) and set(always) <= chosen
    assert len(names) == sum(card.category in chosen for card in cards.values())
    free, left = chosen - set(always), set(present) - chosen
    if free and left:
        assert min(map(tasks.count, free)) >= max(map(tasks.count, left))


def test_what_the_scheme_validates_on_is_always_in(tmp_path):
    cards = _cards(["Other"] * 20 + ["Summarization"])
    cards |= {name: TaskCard(name, "reasoning", "Reasoning") for name in ("reasoning.a", "reasoning.b")}
    scheme = tmp_path / "splits_mine.json"
    scheme.write_text(
        json.dumps(
            {
                "name": "mine",
                "levels_by_task": {"flan.t3": "partially_held_out"},
                "validation_tasks": ["flan.t20", "flan.t3"],
            }
        )
    )
    for size in range(1, 6):
        mixture = Mixture(str(scheme), subset=TaskSubset(size), extra_shares={"reasoning": 0.1})
        names = mixture.select(cards)
        assert "flan.t20" in names and "flan.t3" not in names
        # Benchmarks with a share of their own are not part of the study.
        assert len(names) == size + 2 and {"reasoning.a", "reasoning.b"} <= set(names)
    assert Mixture(str(scheme), subset=CategorySubset(1), exclude="reasoning.*").select(cards) == (
        "flan.t20",
    )


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (lambda: TaskSubset(0), "at least 1"),
        (lambda: TaskSubset(1, "flan.t1"), "must be a list"),
        (lambda: TaskSubset(2, ["flan.t?"]), "no room for 2"),
        (lambda: TaskSubset(2, ["flam.t1"]), "Did you mean 'flan.t1'"),
        (lambda: CategorySubset(1, ["Others"]), "Did you mean 'Other'"),
        (lambda: CategorySubset(1, ["Other", "Mine"]), "no room for 1"),
    ],
)
def test_wrong_settings_are_named(subset, message):
    cards = _cards(["Other", "Mine"] * 10)
    with pytest.raises(InputError, match=message):
        subset().select(cards)


def test_a_category_of_the_taxonomy_without_tasks_takes_no_room():
    cards = _cards(["Other", "Mine", "Mine"])
    assert CategorySubset(1, ["Summarization"]).select(cards) == ("flan.t1", "flan.t2")
