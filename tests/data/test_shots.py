"""The laws of the number of demonstrations have the papers' figures."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.data.shots import mixed_shots, zipf_shots
from iml.errors import InputError


@pytest.mark.parametrize(
    ("exponent", "percent"),
    [
        (2, ["67.05", "16.76", "7.45", "4.19", "2.68", "1.86"]),
        (4, ["92.50", "5.78", "1.14", "0.36", "0.15", "0.07"]),
    ],
)
def test_zipfs_law_has_the_papers_figures(exponent, percent):
    law = zipf_shots(exponent)
    assert [f"{100 * share:.2f}" for share in law] == percent
    assert sum(law) == pytest.approx(1, abs=1e-12)
    form = PromptFormat(shots_distribution=law)
    drawn = collections.Counter(form.draw_shots(Draws(1234, number)) for number in range(40_000))
    for count, share in enumerate(law):
        # Four standard deviations.
        assert abs(drawn[count] - 40_000 * share) < 4 * (40_000 * share) ** 0.5 + 1


@given(few_shot=st.floats(0, 1), counts=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_mixed_shots_are_shares(few_shot, counts):
    law = mixed_shots(few_shot, counts)
    assert law[0] == 1 - few_shot and len(law) == max(counts) + 1
    for count in range(1, len(law)):
        assert law[count] == pytest.approx(few_shot * counts.count(count) / len(counts))
    PromptFormat(shots_distribution=law)


@pytest.mark.parametrize(
    ("law", "field"),
    [
        (lambda: zipf_shots(-1.0), "zipf_shots.exponent"),
        (lambda: zipf_shots(2.0, -1), "zipf_shots.most"),
        (lambda: mixed_shots(1.5), "mixed_shots.few_shot"),
        (lambda: mixed_shots(0.5, (0, 2)), "mixed_shots.counts"),
        (lambda: mixed_shots(0.5, ()), "mixed_shots.counts"),
    ],
)
def test_wrong_settings_are_named(law, field):
    with pytest.raises(InputError, match=field):
        law()
