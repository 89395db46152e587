"""The mixture gives exact whole numbers that lose no task and keep the rates."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import TaskCard
from iml.bench.mixing import Mixture
from iml.bench.subsets import TaskSubset
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


@pytest.mark.parametrize(
    ("fields", "joining"),
    [
        ({}, ""),
        ({"subset": TaskSubset(2)}, ""),
        ({"extra_shares": {"pretraining": 0.05}}, "pretraining.c4"),
        ({"extra_shares": {"pretraining": 0, "dialogue": 0.005}}, "dialogue.talk pretraining.c4"),
        ({"proportions": {"flan": 3, "dialogue": 1}}, "dialogue.talk"),
        ({"tasks": ("flan.*", "pretraining.*")}, "pretraining.c4"),
    ],
)
def test_text_outside_the_families_joins_only_where_it_is_named(fields, joining):
    names = ("flan.a", "flan.b", "pretraining.c4", "dialogue.talk")
    cards = {name: TaskCard(name, name.partition(".")[0], "Summarization") for name in names}
    assert Mixture(**fields).select(cards) == tuple(sorted(["flan.a", "flan.b", *joining.split()]))
    outside = {name: cards[name] for name in names[2:]}
    assert Mixture().select(outside) == tuple(sorted(outside))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_extra_shares_leave_the_others_as_they_are(data):
    """Taken from all, the others keep their proportions; taken from one, they keep their shares."""
    benchmarks = ["flan", "super_natural_instructions", "t5", "promptsource"]
    sizes = {name: data.draw(st.lists(st.integers(1, 6000), min_size=1, max_size=8)) for name in benchmarks}
    tasks = _tasks(sizes | {"reasoning": [40, 4000], "pretraining": [7]})
    proportions = {name: data.draw(st.integers(10, 50)) for name in benchmarks}
    extra = {name: data.draw(st.integers(0, 29)) / 1000 for name in ("reasoning", "pretraining")}
    taken, size = Fraction(round(1000 * sum(extra.values())), 1000), 500_000
    whole = {name: Fraction(proportions[name], sum(proportions.values())) for name in benchmarks}
    from_one = whole | {"flan": whole["flan"] - taken}
    from_all = {name: share * (1 - taken) for name, share in whole.items()}
    for extra_from, shares in ((None, from_all), ("flan", from_one)):
        counts = Mixture(
            proportions=proportions, extra_shares=extra, extra_from=extra_from, epoch_size=size
        ).counts(tasks)
        assert sum(counts.values()) == size
        shares = shares | {name: Fraction(str(share)) for name, share in extra.items() if share}
        for benchmark, share in shares.items():
            drawn = sum(count for name, count in counts.items() if tasks[name][0] == benchmark)
            # Tasks that are due less than one draw get one all the same.
            assert abs(drawn - size * share) <= 1 + len(tasks)
        if all(size * share >= 6000 * 8 for share in shares.values()):
            for benchmark, share in shares.items():
                drawn = sum(count for name, count in counts.items() if tasks[name][0] == benchmark)
                assert abs(drawn - size * share) < 1


def test_the_papers_reasoning_ablation_takes_from_super_ni():
    tasks = _tasks({name: [10_000] for name in (*OPT_IML, "reasoning")})
    proportions = {**OPT_IML, "flan": 27, "super_natural_instructions": 40, "promptsource": 27}
    proportions |= {"crossfit": 2, "exmix": 1, "t5": 1}
    for percent in (1, 10, 39):
        mixture = Mixture(
            proportions=proportions,
            extra_shares={"reasoning": percent / 100},
            extra_from="super_natural_instructions",
            epoch_size=10_000,
        )
        expected = {f"{name}.0": 100 * share for name, share in proportions.items()}
        expected["reasoning.0"] = 100 * percent
        expected["super_natural_instructions.0"] -= 100 * percent
        assert mixture.counts(tasks) == expected


def test_an_extra_share_that_no_task_takes_stays_where_it_was():
    tasks = _tasks({"flan": [100], "t5": [100]})
    mixture = Mixture(
        proportions={"flan": 1, "t5": 1}, extra_shares={"reasoning": 0.1}, extra_from="flan", epoch_size=100
    )
    assert mixture.counts(tasks) == {"flan.0": 50, "t5.0": 50}


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
        ({"extra_from": "flann"}, "Did you mean 'flan'"),
        ({"extra_shares": {"t5": 0.4}, "extra_from": "t5"}, "cannot be one that gets an extra share"),
    ],
)
def test_wrong_settings_are_named(settings_, message):
    with pytest.raises(InputError, match=message):
        Mixture(**settings_).counts(_tasks({"flan": [5, 6, 7]}))


def test_more_cannot_be_taken_from_a_benchmark_than_it_has():
    tasks = _tasks({"flan": [100], "t5": [100], "reasoning": [100]})
    for benchmark, has in (("flan", "0.25"), ("exmix", "0 ")):
        mixture = Mixture(
            proportions={"flan": 1, "t5": 3}, extra_shares={"reasoning": 0.25}, extra_from=benchmark
        )
        with pytest.raises(InputError, match=f"{benchmark} has {has}"):
            mixture.counts(tasks)


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
