"""What is prepared of a task: exact caps, whole examples, the same choice however it is made."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import Example
from iml.bench.contamination_decisions import Without
from iml.data import taking
from iml.data.taking import MAX_EXAMPLES, Take, caps_by_benchmark, take_split
from iml.errors import InputError


def pool(examples, templates=1, order=1):
    """Examples times templates, in a given order."""
    rows = [
        Example(f"u{i}", f"{t} {i}", "x", template=f"t{t}") for i in range(examples) for t in range(templates)
    ]
    return rows[::order]


def taken(rows, take, split="train"):
    examples, underlying = take_split(lambda: iter(rows), "own.a", split, take)
    return list(examples), underlying


@pytest.fixture(params=[8192, 4], ids=["held", "read again"])
def held(request, monkeypatch):
    monkeypatch.setattr(taking, "_HELD", request.param)


@settings(deadline=None, max_examples=60)
@given(
    examples=st.integers(0, 40), templates=st.integers(1, 4), most=st.integers(1, 50), seed=st.integers(0, 9)
)
def test_a_cap_keeps_whole_examples_in_their_order(examples, templates, most, seed):
    rows = pool(examples, templates)
    kept, underlying = taken(rows, Take(most, seed=seed))
    assert underlying is None and kept == [row for row in rows if row in kept]
    counts = collections.Counter(row.uid for row in kept)
    assert len(counts) == min(examples, most) and set(counts.values()) <= {templates}
    larger, _ = taken(rows, Take(most + 5, seed=seed))
    assert {row.uid for row in kept} <= {row.uid for row in larger}
    backwards, _ = taken(rows[::-1], Take(most, seed=seed))
    assert backwards == kept[::-1]


def test_the_choice_is_the_seeds_and_every_example_is_as_likely(held):
    counts = collections.Counter()
    for seed in range(300):
        kept, _ = taken(pool(20), Take(5, seed=seed))
        assert len(kept) == 5
        counts.update(row.uid for row in kept)
    assert min(counts.values()) > 40 and max(counts.values()) < 115  # 75 on average


def test_a_pool_gives_as_many_prompts_as_there_are_examples(held):
    rows = pool(200, templates=5)
    kept, underlying = taken(rows, Take(None, "pooled"))
    assert underlying == len(kept) == 200 and len(set(kept)) == 200
    # From the whole pool: some examples several times, others never (1 - 1/e of them at least once).
    assert 110 < len({row.uid for row in kept}) < 155
    assert set(collections.Counter(row.template for row in kept)) == {f"t{t}" for t in range(5)}
    capped, underlying = taken(rows, Take(50, "pooled"))
    whole, _ = taken(rows, Take(50))
    assert underlying == len(capped) == 50 and set(capped) <= set(whole)


def test_memory_is_bounded_by_what_is_taken(held):
    """A source of a million examples is walked, not held: no more than the cap and one are alive."""
    alive = 0

    class Counted(str):
        def __new__(cls, text):
            nonlocal alive
            alive += 1
            return super().__new__(cls, text)

        def __del__(self):
            nonlocal alive
            alive -= 1

    most_alive = 0

    def read():
        nonlocal most_alive
        for number in range(20_000):
            most_alive = max(most_alive, alive)
            yield Example(f"u{number}", Counted("long text"), "x")

    examples, _ = take_split(read, "own.a", "train", Take(100))
    assert sum(1 for _ in examples) == 100
    assert most_alive <= taking._HELD + 10


def test_evaluation_splits_stay_whole():
    rows = pool(30, templates=2)
    for split in ("validation", "test", "exemplars"):
        assert taken(rows, Take(5, "pooled"), split) == (rows, None)
        assert taken(rows, Take(5, without=Without(evaluation=True)), split) == ([], None)


def test_what_decisions_drop_goes_before_the_cap():
    dropped = frozenset(f"u{i}" for i in range(10))
    for take in (Take(5, without=Without(False, dropped)), Take(None, without=Without(False, dropped))):
        kept, _ = taken(pool(20), take)
        assert len(kept) == min(take.max_examples or 20, 10)
        assert not {row.uid for row in kept} & dropped
        assert Take.from_json(take.to_json()) == take


def test_caps_are_the_papers_and_go_by_benchmark():
    cap = caps_by_benchmark(MAX_EXAMPLES, ["own"])
    assert [cap(name) for name in ("flan", "promptsource", "own")] == [30_000, 100_000, 100_000]
    assert caps_by_benchmark(7, [])("flan") == 7 and caps_by_benchmark(None, [])("flan") is None
    assert caps_by_benchmark({"own": 3}, ["own"])("flan") is None
    with pytest.raises(InputError, match=r"max_examples.*unknown benchmark 'flna'.*'flan'"):
        caps_by_benchmark({"flna": 3}, [])
    with pytest.raises(InputError, match=r"train_prompts.*pooled"):
        Take(train_prompts="pool")
    with pytest.raises(InputError, match="at least 1"):
        Take(0)
