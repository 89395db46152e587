"""The plan draws every task its count each epoch, and walks the rows of a task without replacement."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.data.plan import Draw, StreamPlan
from iml.errors import InputError

GOLDEN = [
    Draw(0, 0, 0, 10857),
    Draw(1, 0, 0, 15693),
    Draw(2, 0, 0, 3671),
    Draw(41002, 0, 0, 8193),
    Draw(41003, 1, 0, 416),
    Draw(1000000000, 24388, 0, 1823),
]


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=8),
    seed=st.integers(0, 2**31),
    epochs=st.integers(1, 3),
)
def test_counts_are_exact_and_rows_come_without_replacement(sizes, seed, epochs):
    counts = {f"t{i}": count for i, (count, _) in enumerate(sizes)}
    rows = {f"t{i}": size for i, (_, size) in enumerate(sizes)}
    plan = StreamPlan(counts, rows, seed)
    seen = collections.defaultdict(collections.Counter)
    for epoch in range(epochs):
        numbers = range(epoch * plan.epoch_size, (epoch + 1) * plan.epoch_size)
        draws = plan.draws(numbers)
        assert [draw.number for draw in draws] == list(numbers)
        assert {draw.epoch for draw in draws} == {epoch}
        tasks = collections.Counter(plan.tasks[draw.task] for draw in draws)
        assert tasks == counts
        for draw in draws:
            seen[plan.tasks[draw.task]][draw.row] += 1
        for name, walked in seen.items():
            passes, rest = divmod((epoch + 1) * counts[name], rows[name])
            assert set(walked) <= set(range(rows[name]))
            assert all(passes <= walked[row] <= passes + (rest > 0) for row in range(rows[name]))


def test_one_draw_equals_many_in_any_order():
    plan = StreamPlan({"a": 30, "b": 7}, {"a": 10, "b": 100}, 1)
    draws = plan.draws(range(200))
    assert [plan.draw(number) for number in range(200)] == draws
    assert plan.draws(range(199, -1, -1)) == draws[::-1]


def test_epochs_and_seeds_have_their_own_order():
    plan, other = (StreamPlan({"a": 50, "b": 50}, {"a": 500, "b": 500}, seed) for seed in (1, 2))
    orders = [
        [draw.task for draw in p.draws(range(e * 100, e * 100 + 100))] for p in (plan, other) for e in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_never_changes():
    """Golden values: a change here changes every run that is resumed or repeated."""
    plan = StreamPlan({"a.x": 40_000, "b.y": 3, "c.z": 1_000}, {"a.x": 25_000, "b.y": 1, "c.z": 90_000}, 1234)
    assert plan.draws([0, 1, 2, 41_002, 41_003, 10**9]) == GOLDEN


def test_a_billion_draws_cost_nothing():
    counts = {f"t{i}": 10_000 for i in range(1_991)}
    plan = StreamPlan(counts, dict.fromkeys(counts, 10**9), 0)
    assert len(plan.draws(range(10**12, 10**12 + 1000))) == 1000


@pytest.mark.parametrize(
    ("counts", "rows"), [({}, {}), ({"a": 0}, {"a": 1}), ({"a": 1}, {"a": 0}), ({"a": 1}, {})]
)
def test_a_plan_needs_draws_and_rows(counts, rows):
    with pytest.raises(InputError):
        StreamPlan(counts, rows, 0)
