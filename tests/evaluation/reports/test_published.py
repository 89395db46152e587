"""Published figures beside ours."""

import json
from importlib import resources

import pytest

from iml.bench.categories import categories
from iml.bench.levels import LEVELS
from iml.evaluation.reports import quality
from iml.evaluation.reports.published import published
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import aggregate
from tests.evaluation.predictions import make_card, make_predictions
from tests.evaluation.reports.test_report import HEADER


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
    file = resources.files("iml.evaluation.reports") / "definitions" / "published.json"
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
