"""Packing loses, splits and repeats nothing, leaves little empty, and lets no document wait for ever."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iml.data.batches import Placed, make_batch
from iml.data.packing import POOL, RowLimits, choose, pool_is_full
from iml.data.prompts import Prompt
from iml.data.tokens import Document


def subsets(sizes, targets, limits):
    """All rows that hold the first document and keep to the limits."""
    for k in range(min(limits.segments, len(sizes))):
        for others in itertools.combinations(range(1, len(sizes)), k):
            row = (0, *others)
            if sum(sizes[i] for i in row) <= limits.positions and (
                limits.targets is None or sum(targets[i] for i in row) <= limits.targets
            ):
                yield row


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    capacity=st.integers(30, 60),
    segments=st.integers(1, 10),
)
def test_the_choice_is_the_best_there_is(sizes, capacity, segments):
    limits = RowLimits(capacity, segments)
    chosen = choose(sizes, [1] * len(sizes), limits)
    assert chosen[0] == 0 and chosen == sorted(set(chosen)) and len(chosen) <= segments
    best = max(sum(sizes[i] for i in row) for row in subsets(sizes, sizes, limits))
    assert sum(sizes[i] for i in chosen) == best


@settings(deadline=None, max_examples=200)
@given(
    documents=st.lists(
        st.tuples(st.integers(1, 30), st.floats(0, 1)).map(
            lambda pair: (pair[0], max(1, int(pair[0] * pair[1])))
        ),
        min_size=1,
        max_size=9,
    ),
    capacity=st.integers(30, 60),
    budget=st.integers(30, 60),
    segments=st.integers(1, 10),
)
@example(documents=[(1, 1), (1, 1), (1, 1), (16, 1), (17, 17)], capacity=30, budget=30, segments=3)
def test_both_budgets_are_kept(documents, capacity, budget, segments):
    sizes, targets = map(list, zip(*documents, strict=True))
    limits = RowLimits(capacity, segments, budget)
    chosen = choose(sizes, targets, limits)
    assert chosen[0] == 0 and tuple(chosen) in set(subsets(sizes, targets, limits))
    # Where the budget of targets does not bind, it costs nothing.
    free = choose(sizes, targets, RowLimits(capacity, segments))
    if sum(targets[i] for i in free) <= budget:
        assert sum(sizes[i] for i in chosen) == sum(sizes[i] for i in free)


def _pack(sizes, limits, targets=None):
    """Packs a stream of sizes through a pool; yields the documents' numbers of each row."""
    targets = targets or [1] * len(sizes)
    stream, pool = enumerate(sizes), []
    while True:
        while not pool_is_full([size for _, size in pool], limits):
            following = next(stream, None)
            if following is None:
                break
            pool.append(following)
        if not pool:
            return
        waiting = [targets[number] for number, _ in pool]
        taken = set(choose([size for _, size in pool], waiting, limits))
        yield [number for i, (number, _) in enumerate(pool) if i in taken]
        pool = [waiting for i, waiting in enumerate(pool) if i not in taken]


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 64), max_size=200), segments=st.integers(1, 12))
def test_every_document_goes_into_exactly_one_row(sizes, segments):
    rows = list(_pack(sizes, RowLimits(64, segments)))
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(sum(sizes[number] for number in row) <= 64 and len(row) <= segments for row in rows)
    placed = {number: row for row, numbers in enumerate(rows) for number in numbers}
    for number, row in placed.items():
        assert row <= number


@pytest.mark.parametrize("mean", [120, 270, 600])
def test_realistic_lengths_fill_99_percent(mean):
    rng = np.random.default_rng(0)
    sizes = np.minimum(2048, np.maximum(4, rng.lognormal(np.log(mean) - 0.6, 1.1, 4000))).astype(int).tolist()
    rows = list(_pack(sizes, RowLimits(2048, 64)))[:-4]
    filled = sum(sizes[number] for row in rows for number in row)
    assert filled / (2048 * len(rows)) >= 0.99


def test_a_budget_of_targets_costs_little_where_targets_are_short():
    rng = np.random.default_rng(0)
    sizes = np.minimum(2048, np.maximum(4, rng.lognormal(5, 1.1, 4000))).astype(int).tolist()
    targets = [int(min(size, 512, 1 + rng.exponential(0.08 * size))) for size in sizes]
    rows = list(_pack(sizes, RowLimits(2048, 64, 512), targets))[:-4]
    assert all(sum(targets[number] for number in row) <= 512 for row in rows)
    assert sum(sizes[number] for row in rows for number in row) / (2048 * len(rows)) >= 0.99


def test_short_documents_get_a_larger_pool():
    assert not pool_is_full([10] * POOL, RowLimits(2048, 64))
    assert pool_is_full([10] * 128, RowLimits(2048, 64))
    rows = list(_pack([20] * 2000, RowLimits(1024, 64)))[:-2]
    assert {len(row) for row in rows} == {51}


def test_batch_arrays():
    def placed(number, tokens, start):
        return Placed(number, number + 5, Document(np.array(tokens, np.int32), start, Prompt("", "", {})))

    rows = [[placed(0, [10, 11, 12, 2], 2), placed(1, [20, 21, 2], 0)], [placed(2, [30, 31, 32, 2], 3)]]
    batch = make_batch(rows, RowLimits(6, 3))
    assert {name: array.tolist() for name, array in batch.items()} == {
        "tokens": [[10, 11, 12, 20, 21, 1], [30, 31, 32, 1, 1, 1]],
        "targets": [[11, 12, 2, 21, 2, 1], [31, 32, 2, 1, 1, 1]],
        "segment_ids": [[1, 1, 1, 2, 2, 0], [1, 1, 1, 0, 0, 0]],
        "positions": [[0, 1, 2, 0, 1, 0], [0, 1, 2, 0, 0, 0]],
        "loss_weights": [[0, 1, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0]],
        "task_ids": [[5, 6, -1], [7, -1, -1]],
        "example_ids": [[0, 1, -1], [2, -1, -1]],
    }
    others = {"loss_weights": "float32", "example_ids": "int64"}
    assert all(str(array.dtype) == others.get(name, "int32") for name, array in batch.items())
    gathered = make_batch(rows, RowLimits(6, 3, targets=5))
    assert gathered.pop("target_positions").tolist() == [[1, 2, 3, 4, -1], [2, -1, -1, -1, -1]]
    assert all(np.array_equal(gathered[name], array) for name, array in batch.items())
