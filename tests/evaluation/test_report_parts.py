"""What a report is made of besides scores: published figures, confusion, changes, samples, time left."""

import json
from importlib import resources

import pytest

from iml.bench.categories import categories
from iml.bench.levels import LEVELS
from iml.evaluation import quality, samples
from iml.evaluation.aggregation import aggregate
from iml.evaluation.changes import find_changes
from iml.evaluation.confusion import OTHER, confuse
from iml.evaluation.progress import Forecast, Watch, left
from iml.evaluation.published import published
from iml.evaluation.result import Result
from tests.evaluation.results import make_card, make_prediction, make_predictions
from tests.evaluation.test_report import HEADER


def make_result(values, suite="validation", title="ours", **fields):
    """By task, its level, category, benchmark, parent and scores by shots."""
    lines, cards, levels = [], {}, {}
    for name, (level, category, parent, scores) in values.items():
        lines += make_predictions(name, scores, **fields)
        cards[name], levels[name] = make_card(name, category=category, parent=parent), level
    header = {**HEADER, "suite": {"name": suite}}
    return Result(title, aggregate(lines, cards, levels, header, resamples=10), lines)


def test_our_figures_stand_beside_those_of_the_papers():
    values = {
        "mmlu.law": ("partially_held_out", "MMLU", "mmlu", {0: [100, 0], 5: [100, 100]}),
        "mmlu.art": ("partially_held_out", "MMLU", "mmlu", {0: [0, 0], 5: [100, 0]}),
    }
    [opt_iml, flan] = published([make_result(values, "MMLU").scores])
    assert opt_iml.source == "Table 14, arXiv 2212.12017" and flan.source == "Table 1, arXiv 2301.13688"
    [column] = opt_iml.columns
    assert column.ours[0]["0"] == 25 and column.ours[0]["5"] == 75
    theirs = dict(zip(opt_iml.models, column.theirs, strict=True))
    assert theirs["OPT-IML-Max 30B"] == {"0": 46.3, "5": 43.2} and theirs["T5 11B"] == {"5": 25.9}
    grid = quality.published_grids([make_result(values, "MMLU")])[0]
    assert grid.rows[0][:2] == ("MMLU", "25.0 / 75.0") and "27.3 / 34.2" in grid.rows[0]
    assert {grid.head[i] for i in grid.others} >= {"OPT 30B (published)"} and "ours" not in grid.others
    assert "were not run here" in grid.note
    assert published([make_result(values, "another").scores]) == []


def test_an_average_needs_all_its_columns_and_categories_keep_their_level():
    values = {
        "super_natural_instructions.a": (
            "fully_held_out",
            "Textual Entailment",
            "",
            {0: [40], 2: [50], 5: [60]},
        ),
        "super_natural_instructions.b": (
            "fully_held_out",
            "Coreference Resolution",
            "",
            {0: [20], 2: [0], 5: [30]},
        ),
    }
    suite = "Super-NaturalInstructions"
    [part] = published([make_result(values, suite).scores])
    assert [column.ours[0].get("0") for column in part.columns] == [40, 20, None, None]
    values["super_natural_instructions.c"] = (
        "fully_held_out", "Dialogue Act Recognition", "", {0: [0], 2: [10], 5: [90]},
    )  # fmt: skip
    [whole] = published([make_result(values, suite).scores])
    assert {key: whole.columns[-1].ours[0][key] for key in "025"} == {"0": 20, "2": 20, "5": 60}
    # Of the OPT-IML validation suite, question answering is asked at two levels.
    values = {
        "flan.x": ("supervised", "Question Answering", "", {0: [90], 5: [80]}),
        "flan.y": ("partially_held_out", "Question Answering", "", {0: [10], 5: [20]}),
    }
    table, _, whole = published([make_result(values, "OPT-IML validation").scores])
    found = {(c.title, c.level): c.ours[0].get("0") for c in table.columns if c.ours[0]}
    assert found == {
        ("Question Answering", "supervised"): 90,
        ("Question Answering", "partially_held_out"): 10,
    }
    assert whole.columns[0].ours[0]["0"] == 50 and whole.columns[0].theirs[1] == {"0": 46.0, "5": 57.6}


def test_published_figures_are_consistent():
    file = resources.files("iml.evaluation") / "definitions" / "published.json"
    tables = json.loads(file.read_text())["tables"]
    for table in tables:
        for row in table["rows"]:
            assert len(row["scores"]) == len(table["columns"]), table["table"]
        for column in table["columns"]:
            if "categories" in column["at"]:
                level, category = column["at"]["categories"]
                assert level in LEVELS and category in categories()
    [opt] = [table for table in tables if table["table"] == "Table 9"]
    scores = next(row["scores"] for row in opt["rows"] if row["model"] == "OPT-IML 30B")
    for shots in ("0", "32"):
        # The printed average is that of the printed columns.
        assert sum(cell[shots] for cell in scores[:-1]) / 14 == pytest.approx(scores[-1][shots], abs=0.06)
    [grid] = [table for table in tables if table["table"] == "Table 4"]
    [row] = grid["rows"]
    for shots, average in (("0", 46.0), ("5", 57.6)):
        known = [cell[shots] for cell in row["scores"] if shots in cell]
        assert sum(known) / len(known) == pytest.approx(average, abs=0.06)


def answers(pairs, **fields):
    return [
        make_prediction("t", 0, i, 0, references=[true], prediction=given, **fields)
        for i, (true, given) in enumerate(pairs)
    ]


def test_confusion_counts_labels_and_what_is_none():
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] * 2 + [("no", "no")] * 4 + [("no", "perhaps")]
    found = confuse(answers(pairs))
    assert found.labels == ("no", "yes") and found.columns == ("no", "yes", OTHER)
    assert found.counts == ((4, 0, 1), (2, 3, 0))
    ranked = confuse(answers(pairs[:9], candidates=["yes", "no"]))
    assert ranked.counts == ((4, 0), (2, 3)) and ranked.kind == "labels"


def test_confusion_of_changing_candidates_is_that_of_their_places():
    lines = [
        make_prediction(
            "t", 0, i, 0, references=[f"b{i}"], prediction=f"a{i}", candidates=[f"a{i}", f"b{i}", f"c{i}"]
        )
        for i in range(6)
    ]
    found = confuse(lines)
    assert found.kind == "places" and found.counts == ((0, 0, 0), (6, 0, 0), (0, 0, 0))
    # Free text is no classification.
    assert confuse(answers([(f"text {i}", "x") for i in range(20)])) is None


def test_changes_count_and_show_what_became_right_and_wrong():
    values = {"a.t": ("supervised", "A", "", {0: [100, 0, 0, 50], 5: [0, 0, 0, 0]})}
    after = {"a.t": ("supervised", "A", "", {0: [0, 100, 100, 60], 5: [0, 0, 0, 0]})}
    found = find_changes(make_result(values, title="before"), make_result(after, title="after"))
    [task] = found.tasks
    assert (task.prompts, task.gained, task.lost, task.better, task.worse) == (8, 2, 1, 3, 1)
    assert task.cell["difference"] == pytest.approx(110 / 4 / 2)
    assert [[title for title, *_ in sample.answers] for sample in task.samples] == [["before", "after"]] * 3
    assert all("changed" in sample.kinds for sample in task.samples)
    other = make_result(values, prompt="another question")
    assert "no prompt in common" in find_changes(make_result(values), other).problem


def test_samples_are_half_wrong_where_there_are_enough():
    lines = make_predictions("t", {0: [100, 100, 0, 100, 0, 0, 0]})
    chosen = samples.choose([lines], ["x"], {"t": "rouge_l"}, 4)["t"]
    assert [sample.kinds for sample in chosen] == [("wrong",)] * 2 + [("right",)] * 2
    few = samples.choose([make_predictions("t", {0: [100, 0, 0, 0]})], ["x"], {"t": "rouge_l"}, 4)["t"]
    assert len(few) == 4


def test_the_time_left_goes_by_the_kind_of_request():
    forecast = Forecast({"rank": 1000.0, "generate": 50.0})
    forecast.add("rank", 500.0, 10.0)
    # How long an answer takes is not known before one was generated.
    assert forecast.seconds is None and "not known" in left(forecast.seconds)
    forecast.add("generate", 10.0, 20.0)
    assert forecast.seconds == pytest.approx(500 * 10 / 500 + 40 * 20 / 10)
    forecast.correct("rank", 500.0)
    assert forecast.seconds == pytest.approx(1000 * 10 / 500 + 80)
    assert left(3725.2) == "1:02:05 left" and left(65) == "1:05 left"


def test_a_watch_gives_each_kind_its_own_time():
    now = [0.0]
    watch = Watch(lambda: now[0])
    watch.begin({"rank": 100.0, "generate": 100.0}, total=20, done=4)
    now[0] = 5.0
    # Opening files is nobody's time.
    watch.start()
    now[0] = 7.0
    watch.answered("rank", 50.0, 3)
    now[0] = 17.0
    watch.answered("generate", 50.0, 2)
    assert watch.done == 9 and watch.forecast.seconds == pytest.approx(2 + 10)
