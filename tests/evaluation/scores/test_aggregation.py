"""Aggregation against numbers computed by hand, and what must not change it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.errors import InputError
from iml.evaluation.reports import page, tables
from iml.evaluation.scores.aggregation import aggregate
from tests.evaluation.predictions import make_card, make_prediction, make_predictions


def means(cells):
    return {key: cell["mean"] for key, cell in cells.items()}


def aggregate_simply(tasks, levels=None, **settings):
    """Aggregates {card: predictions}; every task's level is supervised unless told."""
    cards = {card.name: card for card, _ in tasks}
    levels = {name: (levels or {}).get(name, "supervised") for name in cards}
    return aggregate([line for _, lines in tasks for line in lines], cards, levels, **settings)


def test_means_of_means_by_hand():
    tasks = [
        # Three subtypes of one task: 10, 20, 60 -> 30.
        *(
            (make_card(f"p.mmlu_{i}", parent="mmlu"), make_predictions(f"p.mmlu_{i}", {0: [score]}))
            for i, score in enumerate([10, 20, 60])
        ),
        # One data set in two benchmarks: n has 40 and 60 (50), f has 90 -> 70.
        (make_card("n.copa1", source="COPA"), make_predictions("n.copa1", {0: [40]})),
        (make_card("n.copa2", source="copa"), make_predictions("n.copa2", {0: [60]})),
        (make_card("f.copa", source="Copa "), make_predictions("f.copa", {0: [80, 100]})),
        # Two tasks on one data set in one benchmark stay two.
        (make_card("n.race1", source="race", category="B"), make_predictions("n.race1", {0: [0]})),
        (make_card("n.race2", source="race", category="B"), make_predictions("n.race2", {0: [30]})),
        # The same data set in another category is another task.
        (make_card("f.race", source="race", category="C"), make_predictions("f.race", {0: [100]})),
        (make_card("f.held", category="D"), make_predictions("f.held", {0: [25, 75]})),
    ]
    scores = aggregate_simply(tasks, {"f.held": "fully_held_out"})
    supervised = {name: cells["0"]["mean"] for name, cells in scores["categories"]["supervised"].items()}
    assert supervised == pytest.approx({"A": (30 + 70) / 2, "B": 15, "C": 100})
    assert list(scores["levels"]) == ["fully_held_out", "supervised"]
    assert scores["levels"]["supervised"]["0"]["mean"] == pytest.approx((50 + 15 + 100) / 3)
    assert scores["levels"]["fully_held_out"]["0"]["mean"] == 50
    assert scores["levels"]["supervised"]["0"]["tasks"] == 9
    # A benchmark's mean knows parents and categories, and not the other benchmarks.
    benchmarks = {name: cells["0"]["mean"] for name, cells in scores["benchmarks"]["supervised"].items()}
    assert benchmarks == pytest.approx({"f": (90 + 100) / 2, "n": (50 + 15) / 2, "p": 30})
    groups = {group["name"]: group for group in scores["groups"]["supervised"]}
    assert groups["mmlu"]["cells"]["0"]["mean"] == pytest.approx(30)
    assert groups["copa"]["cells"]["0"]["mean"] == pytest.approx(70)
    assert groups["copa"]["tasks"] == ["f.copa", "n.copa1", "n.copa2"]
    assert set(groups) == {"mmlu", "copa"}


def test_every_number_of_shots_on_its_own_and_then_their_mean():
    tasks = [
        (make_card("a.x"), make_predictions("a.x", {0: [0, 20], 5: [50, 70]})),
        (make_card("a.y", category="B"), make_predictions("a.y", {0: [30], 5: [80]})),
    ]
    scores = aggregate_simply(tasks)
    assert scores["shots"] == [0, 5]
    assert means(scores["tasks"]["a.x"]["cells"]) == pytest.approx({"0": 10, "5": 60, "average": 35})
    assert means(scores["levels"]["supervised"]) == pytest.approx({"0": 20, "5": 70, "average": 45})


def test_what_lacks_a_number_of_shots_has_no_mean_over_them():
    tasks = [
        (make_card("a.x"), make_predictions("a.x", {0: [10], 5: [50]})),
        (make_card("a.y"), make_predictions("a.y", {0: [30]})),
    ]
    scores = aggregate_simply(tasks)
    assert means(scores["tasks"]["a.y"]["cells"]) == {"0": 30}
    assert means(scores["levels"]["supervised"]) == {"0": 20, "5": 50, "average": 35}


def test_prompts_of_a_task_count_alike_whatever_their_template():
    lines = [
        make_prediction("a.x", 0, row, score, template=template, uid=uid)
        for row, (template, uid, score) in enumerate([("s", "1", 0), ("t", "1", 30), ("t", "2", 90)])
    ]
    cell = aggregate_simply([(make_card("a.x"), lines)])["tasks"]["a.x"]["cells"]["0"]
    assert cell["mean"] == 40 and cell["examples"] == 2


def test_scorers_side_by_side_on_the_ranked_tasks_alone():
    picks = [{"sum": 0, "mean": 1}, {"sum": 0, "mean": 0}]
    ranked = [
        make_prediction("a.rank", 0, i, 0, "accuracy", candidates=["right", "wrong"], picks=pick)
        for i, pick in enumerate(picks)
    ]
    generated = make_predictions("a.free", {0: [70]}, category="B")
    cards = make_card("a.rank", metrics=("accuracy",)), make_card("a.free")
    scores = aggregate_simply([(cards[0], ranked), (cards[1], generated)])
    found = {name: levels["supervised"]["0"] for name, levels in scores["scorers"].items()}
    assert {name: (cell["mean"], cell["tasks"]) for name, cell in found.items()} == {
        "mean": (50, 1),
        "sum": (100, 1),
    }
    assert scores["tasks"]["a.rank"]["scorers"] == {"mean": {"0": 50}, "sum": {"0": 100}}


def test_flags_and_other_metrics_are_told():
    lines = make_predictions("a.x", {0: [50, 100]}, flags=["unfinished"], truncated=3)
    for line in lines:
        line["metrics"]["exact_match"] = 100.0 * (line["row"] == 1)
    task = aggregate_simply([(make_card("a.x", metrics=("rouge_l", "exact_match")), lines)])["tasks"]["a.x"]
    assert task["metrics"] == {"rouge_l": {"0": 75}, "exact_match": {"0": 50}}
    assert task["flags"] == {"truncated": 2, "unfinished": 2} and task["metric"] == "rouge_l"


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).uniform(0, 100, 400)
    cell = aggregate_simply([(make_card("a.x"), make_predictions("a.x", {0: values}))], resamples=4000)
    cell = cell["levels"]["supervised"]["0"]
    half = 1.96 * values.std() / 20
    assert cell["low"] == pytest.approx(values.mean() - half, abs=0.35)
    assert cell["high"] == pytest.approx(values.mean() + half, abs=0.35)


def test_the_interval_over_tasks_tells_how_far_tasks_differ():
    """Its variance is that of tasks drawn, plus that of their examples, over the number of tasks."""
    rng = np.random.default_rng(2)
    centres = rng.uniform(30, 70, 40)
    values = [centre + rng.uniform(-20, 20, 25) for centre in centres]
    pairs = [
        (make_card(f"a.x{i}", category="many"), make_predictions(f"a.x{i}", {0: v, 5: v}))
        for i, v in enumerate(values)
    ]
    pairs.append(
        (make_card("b.y", category="one"), make_predictions("b.y", {0: [0, 100] * 50, 5: [50] * 100}))
    )
    scores = aggregate_simply(pairs, resamples=4000)
    cell = scores["categories"]["supervised"]["many"]["0"]
    means = [v.mean() for v in values]
    error = np.sqrt((np.var(means) + np.mean([v.var() / 25 for v in values])) / 40)
    wide = cell["over_tasks"]
    assert wide["low"] == pytest.approx(cell["mean"] - 1.96 * error, abs=0.3)
    assert wide["high"] == pytest.approx(cell["mean"] + 1.96 * error, abs=0.3)
    assert wide["high"] - wide["low"] > 3 * (cell["high"] - cell["low"])
    # The numbers of shots see the same tasks, so their mean is no surer than they.
    average = scores["categories"]["supervised"]["many"]["average"]["over_tasks"]
    assert average["high"] - average["low"] == pytest.approx(wide["high"] - wide["low"], rel=0.1)
    # There is no other task to draw in place of a category's only one.
    assert "over_tasks" not in scores["categories"]["supervised"]["one"]["0"]
    whole = scores["levels"]["supervised"]["0"]
    half = 1.96 * np.hypot(error, 50 / 10) / 2
    assert whole["over_tasks"]["low"] == pytest.approx(whole["mean"] - half, abs=0.4)
    assert scores["overall"]["0"]["over_tasks"] == whole["over_tasks"]
    [row] = tables.level_table([scores]).rows
    told = row.scores[0][0]
    assert str(told).endswith("over tasks [{low:.1f}, {high:.1f}]".format(**whole["over_tasks"]))
    assert "<small>tasks " in page.score_cell(told) and "<small>" not in page.score_cell(tables.Score(1.0))


def test_prompts_of_one_example_are_drawn_together():
    """Ten renderings of an example tell no more than one."""
    once = make_predictions("a.x", {0: [0, 100] * 20})
    often = [{**line, "row": 10 * line["row"] + i} for line in once for i in range(10)]
    cells = [
        aggregate_simply([(make_card("a.x"), lines)])["tasks"]["a.x"]["cells"]["0"] for lines in (once, often)
    ]
    assert cells[0] == pytest.approx(cells[1])
    assert cells[0]["high"] - cells[0]["low"] > 25


def test_no_predictions_and_missing_metrics_are_refused():
    with pytest.raises(InputError, match="no predictions"):
        aggregate([], {}, {})
    with pytest.raises(InputError, match="exact_match"):
        aggregate_simply([(make_card("a.x", metrics=("exact_match",)), make_predictions("a.x", {0: [1]}))])


score = st.floats(0, 100, allow_nan=False)
tasks = st.dictionaries(
    st.sampled_from([f"{benchmark}.t{i}" for benchmark in "abc" for i in range(3)]),
    st.tuples(
        st.lists(score, min_size=1, max_size=4),
        st.lists(score, min_size=1, max_size=4),
        st.sampled_from(["A", "B"]),
        st.sampled_from(["", "squad"]),
        st.sampled_from(["", "parent"]),
    ),
    min_size=1,
)


@settings(max_examples=40, deadline=None)
@given(tasks, st.randoms(use_true_random=False))
def test_the_order_of_predictions_changes_nothing_and_scores_stay_in_range(drawn, random):
    cards, lines, levels = {}, [], {}
    for name, (zero, five, category, source, parent) in drawn.items():
        cards[name] = make_card(name, category=category, source=source, parent=parent)
        levels[name] = "supervised" if name.endswith("0") else "fully_held_out"
        lines += make_predictions(name, {0: zero, 5: five})
    scores = aggregate(lines, cards, levels, resamples=20)
    random.shuffle(lines)
    assert json.dumps(aggregate(lines, cards, levels, resamples=20)) == json.dumps(scores)
    for level, cells in scores["levels"].items():
        found = [task["cells"] for task in scores["tasks"].values() if task["level"] == level]
        for key, cell in cells.items():
            values = [task[key]["mean"] for task in found]
            assert min(values) - 1e-9 <= cell["mean"] <= max(values) + 1e-9
            assert -1e-9 <= cell["low"] <= cell["high"] <= 100 + 1e-9
        assert cells["average"]["mean"] == pytest.approx((cells["0"]["mean"] + cells["5"]["mean"]) / 2)
        assert cells["0"]["tasks"] == len(found)


@settings(max_examples=20, deadline=None)
@given(tasks)
def test_a_task_more_leaves_the_others_intervals_alone(drawn):
    cards = {name: make_card(name) for name in drawn}
    levels = dict.fromkeys([*drawn, "z.more"], "supervised")
    lines = [line for name, found in drawn.items() for line in make_predictions(name, {0: found[0]})]
    few = aggregate(lines, cards, levels, resamples=20)["tasks"]
    cards["z.more"] = make_card("z.more")
    many = aggregate(lines + make_predictions("z.more", {0: [1, 2]}), cards, levels, resamples=20)["tasks"]
    assert few == {name: many[name] for name in few}
