"""The curve over training: the average that picks a step, by hand; what is repeated and what is not."""

import json
import os

import pytest
from etils import epath

from iml.errors import InputError
from iml.evaluation.reports import curve_report, report
from iml.evaluation.reports.curve import draw, scores
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import AVERAGE, aggregate
from tests.evaluation.predictions import make_card, make_predictions
from tests.evaluation.reports.test_report import HEADER, Page

LEVELS = {"a.held": "fully_held_out", "a.known": "supervised", "a.also": "supervised", "a.zero": "supervised"}
CATEGORIES = {
    "a.held": "Reasoning",
    "a.known": "Reasoning",
    "a.also": "Summarization",
    "a.zero": "Translation",
}


def make_result(values, title="", header=HEADER):
    """By task and shots, the scores of its rows."""
    lines = [line for task, by_shots in values.items() for line in make_predictions(task, by_shots)]
    cards = {name: make_card(name, category=CATEGORIES[name]) for name in values}
    return Result(title, aggregate(lines, cards, LEVELS, header), lines)


def make_run():
    """Three steps; one task has no 5-shot prompts, as summaries have none in the paper."""
    steps = {
        100: ([10, 30], [40], [60], [80], [50, 70]),
        200: ([20, 40], [60], [70], [90], [20, 40]),
        300: ([30, 50], [10], [80], [95], [90, 90]),
    }
    return {
        step: make_result({"a.held": {0: a, 5: b}, "a.known": {0: c, 5: d}, "a.zero": {0: e}})
        for step, (a, b, c, d, e) in steps.items()
    }


def test_a_step_is_picked_by_the_mean_over_categories_and_then_over_shots():
    curve = draw(make_run())
    # 0-shot (20 + 60 + 60) / 3, 5-shot (40 + 80) / 2, of which the mean; the levels' sizes do not count.
    by_hand = [(140 / 3 + 60) / 2, (130 / 3 + 75) / 2, (210 / 3 + 52.5) / 2]
    assert [score.mean for score in scores(curve, AVERAGE)] == pytest.approx(by_hand)
    assert [score.mean for score in scores(curve, "5")] == pytest.approx([60, 75, 52.5])
    assert [score.mean for score in scores(curve, "0", "supervised")] == pytest.approx([60, 50, 85])
    assert curve.chosen == 300
    for step, point in zip(make_run(), curve.points, strict=True):
        assert point.average == make_run()[step].scores["overall"]
    last = curve.points[-1]
    assert last.behind == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert curve.points[0].behind["difference"] == pytest.approx(by_hand[2] - by_hand[0])
    assert all(score.low <= score.mean <= score.high for score in scores(curve, AVERAGE))


def test_a_category_of_several_tasks_has_the_interval_over_tasks_too(monkeypatch, tmp_path):
    monkeypatch.setitem(CATEGORIES, "a.also", "Reasoning")
    steps = {
        step: make_result({"a.known": {0: [known, 40], 5: [60]}, "a.also": {0: [90, 70], 5: [95]}})
        for step, known in ((100, 10), (200, 30))
    }
    curve = draw(steps)
    for step, point in zip(steps, curve.points, strict=True):
        assert point.average == steps[step].scores["overall"]
        assert point.levels == steps[step].scores["levels"]
        assert point.average[AVERAGE]["over_tasks"]["low"] < point.average[AVERAGE]["low"]
    curve_report.write_curve(tmp_path, curve)
    assert ", over tasks " in (tmp_path / "curve.md").read_text()
    assert "<small>tasks " in (tmp_path / "curve.html").read_text()


def test_of_equals_the_earlier_step_is_picked():
    same = {"a.held": {0: [50, 60]}}
    assert draw({step: make_result(same) for step in (30, 10, 20)}).chosen == 10


def test_tasks_that_a_step_lacks_count_nowhere_and_are_named(tmp_path):
    first = make_result({"a.held": {0: [10]}, "a.also": {0: [100]}})
    curve = draw({1: first, 2: make_result({"a.held": {0: [20]}})})
    assert curve.chosen == 2 and curve.left_out == ("a.also",) and curve.tasks == 1
    assert [score.mean for score in scores(curve, AVERAGE)] == [10, 20]
    curve_report.write_curve(tmp_path, curve)
    assert "1 tasks do not count" in (tmp_path / "curve.md").read_text()


def test_steps_that_were_not_asked_the_same_are_refused():
    values = {"a.held": {0: [10]}}
    other = make_result(values, "step 2", {**HEADER, "seed": 2})
    with pytest.raises(InputError, match="was not asked the same as step 2"):
        draw({1: make_result(values, "step 1"), 2: other})
    with pytest.raises(InputError, match="no task in common"):
        draw({1: make_result(values), 2: make_result({"a.also": {0: [10]}})})


def test_the_curve_is_written_as_page_text_and_numbers(tmp_path):
    curve_report.write_curve(tmp_path, draw(make_run()))
    found = json.loads((tmp_path / "curve.json").read_text())
    assert found["chosen"] == 300 and [point["step"] for point in found["points"]] == [100, 200, 300]
    page = Page((tmp_path / "curve.html").read_text())
    assert page.names.count("svg") == 2 and "script" not in page.names
    assert any("step 200 59.2" in value for name, value in page.attributes if name == "aria-label")
    assert "| 300 | 70.0 " in (tmp_path / "curve.md").read_text()


def test_only_what_is_missing_or_out_of_date_is_evaluated(tmp_path):
    run, output, asked, evaluated = tmp_path / "run", tmp_path / "out", {"seed": 1}, []
    failures, missing = {}, []
    for step in (1, 2):
        (run / "checkpoints" / str(step)).mkdir(parents=True)

    def evaluate(model, folder):
        evaluated.append(epath.Path(model).name)
        result = make_result({"a.held": {0: [10.0 * len(evaluated)]}}, header={**HEADER, "model": model})
        result.scores["failures"].update(failures)
        result.scores["missing"] = list(missing)
        report.write_scores(folder, result.scores)
        (epath.Path(folder) / "results.jsonl").write_text("".join(map(json.dumps, result.predictions)) + "\n")

    def go(settings=asked):
        curve_report.evaluate_steps(str(run), output, (1, 2), settings, evaluate, lambda text: None)
        return [evaluated.pop(0) for _ in list(evaluated)]

    assert go() == ["1", "2"]
    assert go() == []
    (output / "2" / "scores.json").unlink()
    assert go() == ["2"]
    # Written anew since.
    os.utime(run / "checkpoints" / "1", (2**32, 2**32))
    assert go() == ["1"]
    os.utime(run / "checkpoints" / "1", (0, 0))
    # Asked something else.
    assert go({"seed": 2}) == ["1", "2"]
    # A task that failed is tried again, not one that the store lacks.
    failures["a.lost"] = "no rows"
    assert go({"seed": 2}) == ["1", "2"] == go()
    missing.append("a.lost")
    assert go() == ["1", "2"] and go() == []
