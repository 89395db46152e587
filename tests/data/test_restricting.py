"""Less of every task: as many examples as asked for, smaller sets within larger ones, and nothing of the rest."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.mixing import Mixture
from iml.bench.subsets import ExampleSubset
from iml.data.demonstrations import instance
from iml.data.prompts import PromptFormat
from iml.data.restricting import rows_within
from iml.data.stream import TrainStream
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

SIZES = {"flan.big": 200, "flan.small": 7, "t5.one": 1, "promptsource.many": 24, "promptsource.suffixed": 24}
SCHEME = {"name": "none", "fully_held_out_categories": [], "levels_by_task": {}, "levels_by_category": {}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restricting")
    (folder / "splits_none.json").write_text(json.dumps(SCHEME))
    tasks = {
        name: {"train": [(f"q {name} {i}", f"a {i}") for i in range(size)]} for name, size in SIZES.items()
    }
    for name, uid in (("many", "i{i}"), ("suffixed", "i{i}/{template}")):
        tasks[f"promptsource.{name}"]["train"] = [
            {"uid": uid.format(i=i, template=template), "template": template, "source": "q", "target": str(i)}
            for template in "xyz"
            for i in range(24)
        ]
    return make_store(folder, tasks)


def mixture(store, subset=None, **settings_):
    return Mixture(str(store.path.parent / "splits_none.json"), examples=subset, **settings_)


def stream_of(store, subset, shots=0, **settings_):
    vocabulary = write_vocabulary(store.path.parent / "vocabulary")
    return TrainStream(
        store, vocabulary, mixture(store, subset, **settings_), PromptFormat(shots=shots), 2, 64
    )


counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 300), min_size=1)


@settings(deadline=None, max_examples=150)
@given(examples=counts, rates=counts, totals=st.tuples(st.integers(1, 900), st.integers(1, 900)))
def test_totals_are_exact_nested_and_in_proportion(examples, rates, totals):
    rates = {name: rates.get(name, 5) for name in examples}
    small, large = (ExampleSubset(total=total).sizes(examples, rates) for total in sorted(totals))
    for sizes, total in ((small, min(totals)), (large, max(totals))):
        assert sum(sizes.values()) == min(total, sum(examples.values()))
        assert all(0 <= sizes[name] <= examples[name] for name in examples)
        free = [name for name in examples if sizes[name] < examples[name]]
        # Webster: whoever could have more is not behind by a place that another took.
        for name in free:
            for other in examples:
                if sizes[other]:
                    assert rates[other] / (2 * sizes[other] - 1) >= rates[name] / (2 * sizes[name] + 1)
    assert all(small[name] <= large[name] for name in examples)


@settings(deadline=None, max_examples=150)
@given(examples=counts, shares=st.tuples(st.floats(1e-3, 1), st.floats(1e-3, 1)))
def test_shares_are_exact_and_leave_at_least_one(examples, shares):
    small, large = (ExampleSubset(share).sizes(examples, examples) for share in sorted(shares))
    for name, number in examples.items():
        assert 1 <= small[name] <= large[name] <= number
        assert large[name] == 1 or abs(large[name] - max(shares) * number) <= 0.5 + 1e-9
    assert ExampleSubset(1.0).sizes(examples, examples) == examples


@settings(deadline=None, max_examples=60)
@given(
    task=st.sampled_from(sorted(SIZES)),
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    seed=st.integers(0, 99),
)
def test_rows_are_nested_and_hold_whole_examples(store, task, sizes, seed):
    info = store.tasks[task].splits["train"]
    small, large = (
        set(rows_within(store, task, size, seed).tolist())
        for size in sorted(min(n, info.examples) for n in sizes)
    )
    assert small <= large <= set(range(info.rows))
    each = store.read_many(task, "train", range(info.rows))
    for rows, size in ((small, min(sizes)), (large, max(sizes))):
        kept = {instance(each[row]) for row in rows}
        assert {row for row in range(info.rows) if instance(each[row]) in kept} == rows
        if task != "promptsource.suffixed":  # The store counts its renderings: 72.
            assert len(kept) == min(size, info.examples)
        else:
            assert abs(len(kept) - min(size, 72) / 3) < 1


def test_seeds_choose_others_and_all_are_chosen_by_some(store):
    drawn = [frozenset(rows_within(store, "flan.big", 20, seed).tolist()) for seed in range(60)]
    assert len(set(drawn)) == 60
    assert len(frozenset.union(*drawn)) == 200


@pytest.mark.parametrize("subset", [ExampleSubset(0.25), ExampleSubset(total=40), ExampleSubset(total=2)])
def test_an_epoch_is_the_subset_and_demonstrations_come_from_it(store, subset):
    stream = stream_of(store, subset, shots=2)
    sizes = {name: number for name, number in stream.examples.items() if number}
    assert stream.plan.counts == sizes
    if subset.total:
        assert sum(sizes.values()) == subset.total
    prompts = stream.prompts(range(3 * stream.plan.epoch_size))
    seen = {name: set() for name in sizes}
    shown = {name: set() for name in sizes}
    for draw, prompt in prompts:
        name = stream.tasks[draw.task]
        example = store.read(name, "train", draw.row)
        assert example.uid == prompt.provenance["uid"]
        seen[name].add(instance(example))
        shown[name] |= set(prompt.provenance["demonstrations"])
    for name, number in sizes.items():
        within = stream.plan.within[name] if name in stream.plan.within else range(SIZES[name])
        allowed = {store.read(name, "train", row).uid for row in within}
        assert shown[name] <= allowed
        if not name.startswith("promptsource"):
            assert len(seen[name]) == number


def test_rates_are_those_of_the_examples_that_are_left(store):
    full, less = stream_of(store, None, eps=20), stream_of(store, ExampleSubset(0.25), eps=20)
    assert full.plan.counts["flan.big"] == 20 and full.plan.counts["flan.small"] == 7
    assert less.plan.counts["flan.big"] == 20 and less.plan.counts["flan.small"] == 2
    shared = stream_of(store, ExampleSubset(total=30), proportions={"flan": 1, "t5": 2})
    # One example is all that t5 has: flan gets the others, and t5's share is drawn from the one.
    assert shared.examples == {**dict.fromkeys(SIZES, 0), "flan.big": 28, "flan.small": 1, "t5.one": 1}
    assert shared.plan.counts == {"flan.big": 9, "flan.small": 1, "t5.one": 20}


def test_only_a_subset_changes_the_fingerprint(store):
    full = stream_of(store, None).fingerprint
    assert stream_of(store, ExampleSubset(1.0)).fingerprint == full
    prints = {full, *(stream_of(store, ExampleSubset(0.25, seed=seed)).fingerprint for seed in range(3))}
    assert len(prints) == 4


@pytest.mark.parametrize(
    "fields", [{}, {"share": 0.5, "total": 3}, {"share": 0}, {"share": 1.1}, {"total": 0}]
)
def test_wrong_subsets_are_named(fields):
    with pytest.raises(InputError, match="ExampleSubset"):
        ExampleSubset(**fields)
