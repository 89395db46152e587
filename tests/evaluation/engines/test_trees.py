"""Grouping by shared prefixes saves the most there is to save; widths trade padding against compilation."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from iml.evaluation.engines.trees import choose_rows, choose_widths, group_by_prefix, width_of


def partitions(items):
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for chosen in itertools.combinations(rest, size):
            for others in partitions([item for item in rest if item not in chosen]):
                yield [(first, *chosen), *others]


def common(rows):
    shortest = min(map(len, rows))
    return next((d for d in range(shortest) if len({row[d] for row in rows}) > 1), shortest)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=6), max_size=6), st.integers(0, 4))
def test_no_other_grouping_saves_more(rows, price):
    """Among groupings of which no group shares the beginning of what another shares."""
    groups = group_by_prefix(rows, price)
    assert sorted(i for group in groups for i in group.members) == list(range(len(rows)))
    for group in groups:
        assert group.shared <= common([rows[i] for i in group.members])
    saved = sum(group.shared * (len(group.members) - 1) - price for group in groups if group.shared)
    best = 0
    for parts in partitions(list(range(len(rows)))):
        shared = [rows[part[0]][: common([rows[i] for i in part])] for part in parts]
        gains = [len(ids) * (len(part) - 1) - price for ids, part in zip(shared, parts, strict=True)]
        kept = [ids for ids, gain in zip(shared, gains, strict=True) if gain > 0]
        if not any(a == b[: len(a)] for a, b in itertools.permutations(kept, 2)):
            best = max(best, sum(gain for gain in gains if gain > 0))
    assert saved == best


def test_very_deep_nesting_is_no_problem():
    groups = group_by_prefix([[1] * n for n in range(2500)], price=10)
    assert sum(len(group.members) for group in groups) == 2500


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.sets(st.sampled_from([8, 16, 24, 32, 40])),
    st.integers(0, 60),
)
def test_widths_cost_the_least(sizes, known, price):
    def cost(widths):
        if max(widths) < max(sizes):
            return float("inf")
        padded = sum(width_of(widths, size) for size in sizes)
        return padded + price * len(set(widths) - known)

    found = choose_widths(sizes, known, largest=40, step=8, price=price)
    edges = (8, 16, 24, 32, 40)
    choices = [c for n in range(1, 6) for c in itertools.combinations(edges, n)]
    assert cost(found) == min(map(cost, choices))
    assert width_of(found, max(sizes)) <= 40


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(0, 6), st.sampled_from([1, 2, 8]), st.integers(0, 1000))
def test_batches_are_padded_no_more_than_another_size_is_worth(waiting, doublings, least, price):
    most, width = least * 2**doublings, 10
    left, sizes = waiting, set()
    while left > 0:
        rows = choose_rows(left, most, least, width, price)
        assert least <= rows <= most and (rows == least or (rows - left) * width <= price)
        sizes.add(rows)
        left -= rows
    if price >= most * width:
        assert len(sizes) <= 2
