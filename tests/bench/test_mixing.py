"""The mixture gives exact whole numbers that lose no task and keep the rates."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import TaskCard
from iml.bench.mixing import Mixture
from iml.errors import InputError

OPT_IML = {
    "crossfit": 4,
    "exmix": 2,
    "flan": 20,
    "super_natural_instructions": 25,
    "promptsource": 45,
    "t5": 2,
    "unified_skg": 2,
}


def _tasks(sizes_by_benchmark):
    return {
        f"{benchmark}.{number}": (benchmark, size)
        for benchmark, sizes in sizes_by_benchmark.items()
        for number, size in enumerate(sizes)
    }


def _rates(mixture, tasks, shares):
    weights = {name: min(size, mixture.eps) for name, (_, size) in tasks.items()}
    totals = {}
    for name, (benchmark, _) in tasks.items():
        totals[benchmark] = totals.get(benchmark, 0) + weights[name]
    return {name: shares[tasks[name][0]] * Fraction(weights[name], totals[tasks[name][0]]) for name in tasks}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_rates_are_exact_to_one_draw_for_tasks_and_benchmarks(data):
    benchmarks = data.draw(st.lists(st.sampled_from(sorted(OPT_IML)), min_size=1, max_size=5, unique=True))
    tasks = _tasks(
        {name: data.draw(st.lists(st.integers(1, 9000), min_size=1, max_size=30)) for name in benchmarks}
    )
    shares = {name: data.draw(st.integers(1, 50)) for name in benchmarks}
    size = data.draw(st.integers(len(tasks), 200_000))
    mixture = Mixture(proportions=shares, epoch_size=size)
    counts = mixture.counts(tasks)
    rates = _rates(
        mixture, tasks, {name: Fraction(shares[name], sum(shares.values())) for name in benchmarks}
    )
    assert sum(counts.values()) == size
    assert set(counts) == set(tasks)
    assert min(counts.values()) >= 1
    if min(rates.values()) * size >= 1:
        for name, rate in rates.items():
            assert abs(Fraction(counts[name], size) - rate) < Fraction(1, size)
        for benchmark in benchmarks:
            drawn = sum(counts[name] for name in tasks if tasks[name][0] == benchmark)
            assert abs(drawn - size * sum(r for n, r in rates.items() if tasks[n][0] == benchmark)) < 1


def test_1400_tasks_with_tiny_ones_lose_none():
    sizes = [1 + (number * number * 7919) % 100_000 if number % 10 else 1 for number in range(1400)]
    tasks = _tasks({"super_natural_instructions": sizes[:1100], "promptsource": sizes[1100:]})
    mixture = Mixture(proportions=OPT_IML, epoch_size=20_000)
    counts = mixture.counts(tasks)
    assert len(counts) == 1400 and min(counts.values()) == 1 and sum(counts.values()) == 20_000
    drawn = sum(count for name, count in counts.items() if tasks[name][0] == "promptsource")
    assert abs(drawn - 20_000 * 45 / 70) < 1
    assert mixture.counts(dict(reversed(tasks.items()))) == counts


def test_cap_and_default_epoch_size():
    tasks = _tasks({"flan": [10, 4096, 100_000], "t5": [0, 30]})
    assert Mixture().counts(tasks) == {"flan.0": 10, "flan.1": 4096, "flan.2": 4096, "t5.1": 30}
    assert Mixture(eps=None).counts(tasks)["flan.2"] == 100_000


def test_extra_shares_come_off_the_whole_and_absent_benchmarks_leave_theirs():
    tasks = _tasks({"flan": [1000], "t5": [1000], "reasoning": [50, 50], "pretraining": [9]})
    mixture = Mixture(
        proportions={"flan": 3, "t5": 1, "crossfit": 4},
        extra_shares={"reasoning": 0.01, "pretraining": 0.05, "dialogue": 0.1},
        epoch_size=10_000,
    )
    counts = mixture.counts(tasks)
    assert counts == {
        "flan.0": 7050,
        "pretraining.0": 500,
        "reasoning.0": 50,
        "reasoning.1": 50,
        "t5.0": 2350,
    }


def test_unnamed_benchmarks_are_left_out():
    assert set(Mixture(proportions={"flan": 1}).counts(_tasks({"flan": [5], "t5": [5]}))) == {"flan.0"}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"proportions": {"promptsorce": 1}}, "Did you mean 'promptsource'"),
        ({"extra_shares": {"reasonin": 0.1}}, "Did you mean 'reasoning'"),
        ({"proportions": {"t5": 1}}, "no task has a positive rate"),
        ({"epoch_size": 2}, "cannot hold each of 3 tasks"),
        ({"epoch_size": 0}, "at least 1"),
        ({"proportions": {"flan": -1}}, "Mixture.proportions"),
        ({"extra_shares": {"flan": 0.7, "t5": 0.4}}, "over 1"),
    ],
)
def test_wrong_settings_are_named(settings_, message):
    with pytest.raises(InputError, match=message):
        Mixture(**settings_).counts(_tasks({"flan": [5, 6, 7]}))


def test_select_takes_supervised_tasks_by_pattern(tmp_path):
    cards = {name: TaskCard(name, name.split(".")[0], "Other") for name in ("flan.a", "flan.b", "t5.a")}
    held_out = {
        "name": "mine",
        "fully_held_out_categories": [],
        "levels_by_task": {"flan.b": "fully_held_out"},
        "levels_by_category": {},
    }
    scheme = tmp_path / "splits_mine.json"
    scheme.write_text(json.dumps(held_out))
    assert Mixture(split_scheme=str(scheme)).select(cards) == ("flan.a", "t5.a")
    assert Mixture(split_scheme=str(scheme), tasks="flan.*").select(cards) == ("flan.a",)
    assert Mixture(split_scheme=str(scheme), exclude=("t5.*",)).select(cards) == ("flan.a",)
    with pytest.raises(InputError, match=r"flam\.\*"):
        Mixture(split_scheme=str(scheme), tasks=("flam.*",)).select(cards)
    with pytest.raises(InputError, match="no supervised task"):
        Mixture(split_scheme=str(scheme), tasks=("flan.b",)).select(cards)
