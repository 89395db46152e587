"""A study's statistics, against the definitions written out on made-up results; and the files of its report."""

from __future__ import annotations

import csv
import html.parser
import json
import re

import numpy as np
import pytest

from iml.errors import InputError
from iml.evaluation.reports.report import read_result
from iml.evaluation.scores.comparison import compare
from iml.studies import work
from iml.studies.report import write_report
from iml.studies.results import ALL, collect, find_result
from iml.study import study
from tests.studies import made_up, tiny
from tests.studies.made_up import SEEDS, SETTINGS, SHOTS, TASKS

CATEGORIES = sorted({(level, category) for level, category, _ in TASKS.values()})


def of_all(by_task, shots: int) -> float:
    """Mean over the categories of all levels, each the mean of its tasks' means; from 0 to 100."""
    means = [
        np.mean(
            [by_task[task][shots].mean() for task, told in TASKS.items() if told[:2] == (level, category)]
        )
        for level, category in CATEGORIES
    ]
    return 100 * float(np.mean(means))


@pytest.fixture
def answers():
    return made_up.draw_answers()


@pytest.fixture
def plan(tmp_path, answers):
    made = made_up.make_plan(tmp_path)
    made_up.write_results(made, answers)
    return made


def test_means_over_seeds_and_the_selected_setting(plan, answers):
    results = collect(plan, "suite")
    averages = {}
    for row in results.rows:
        by_shots = {n: np.mean([of_all(by_task, n) for by_task in answers[row.name]]) for n in SHOTS}
        averages[row.name] = np.mean(list(by_shots.values()))
        assert row.scores[ALL]["0"]["mean"] == pytest.approx(by_shots[0])
        assert row.scores[ALL]["5"]["mean"] == pytest.approx(by_shots[5])
        assert row.scores[ALL]["average"]["mean"] == pytest.approx(averages[row.name])
        one = [100 * by_task["b.four"][0].mean() for by_task in answers[row.name]]
        cell = row.scores["fully_held_out", "Textual Entailment"]["0"]
        assert cell["mean"] == pytest.approx(np.mean(one)) and cell["tasks"] == 1 and cell["examples"] == 60
        less = row.differences.get(ALL)
        if row.name == SETTINGS[0]:
            assert not row.differences
        else:
            assert less["average"]["difference"] == pytest.approx(averages[row.name] - averages[SETTINGS[0]])
    assert results.selected == max(averages, key=averages.get) == SETTINGS[2]
    behind = {row.name: row.behind for row in results.rows}
    for name, told in behind.items():
        assert told["difference"] == pytest.approx(averages[SETTINGS[2]] - averages[name])
    assert behind[SETTINGS[0]]["p"] < 0.01 and behind[SETTINGS[2]]["p"] == 1


def test_intervals_draw_examples_and_seeds_in_pairs(plan, answers):
    results = {row.name: row for row in collect(plan, "suite").rows}
    random, drawn = np.random.default_rng(11), {name: [] for name in SETTINGS}
    for _ in range(3000):
        # The same examples and the same seeds of every setting.
        rows = {task: random.integers(size, size=size) for task, (_, _, size) in TASKS.items()}
        seeds = random.integers(len(SEEDS), size=len(SEEDS))
        for name in SETTINGS:
            found = [
                {t: {n: by[n][rows[t]] for n in SHOTS} for t, by in answers[name][seed].items()}
                for seed in seeds
            ]
            drawn[name].append(np.mean([of_all(by_task, n) for by_task in found for n in SHOTS]))
    for name in SETTINGS:
        _check(results[name].scores[ALL]["average"], np.array(drawn[name]))
        if name != SETTINGS[0]:
            less = np.array(drawn[name]) - np.array(drawn[SETTINGS[0]])
            _check(results[name].differences[ALL]["average"], less)


def _check(cell, samples) -> None:
    low, high = np.quantile(samples, (0.025, 0.975))
    assert cell["low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert cell["high"] == pytest.approx(high, abs=0.1 * (high - low))


def test_with_one_seed_differences_are_those_of_a_comparison_of_two_results(tmp_path, answers):
    plan = made_up.make_plan(tmp_path, seeds=(1,))
    made_up.write_results(plan, answers)
    rows = {row.name: row for row in collect(plan, "suite").rows}
    folders = [work.results_folder(tmp_path, row.runs[0], "asked") for row in plan.rows[:2]]
    before, after = (read_result(folder, "") for folder in folders)
    found = compare((before.scores, before.predictions), (after.scores, after.predictions))
    differences = rows[SETTINGS[1]].differences
    for level, cells in found["levels"].items():
        assert differences[level, ""] == cells
        for category, part in found["categories"][level].items():
            assert differences[level, category] == part
    scores = rows[SETTINGS[1]].scores
    for level, cells in after.scores["levels"].items():
        assert scores[level, ""]["average"]["mean"] == pytest.approx(cells["average"]["mean"])
    # A setting, a run and a folder name the same result.
    by_name = [find_result(plan, name, "suite") for name in (SETTINGS[1], "run1seed1", str(folders[1]))]
    assert len({json.dumps(result.scores, sort_keys=True) for result in by_name}) == 1
    with pytest.raises(InputError, match="Settings: 10 %, 50 %, 100 %; runs: run0seed1"):
        find_result(plan, "60 %", "suite")


def test_what_is_missing_is_said_and_does_not_count(tmp_path, answers):
    plan = made_up.make_plan(tmp_path)
    empty = collect(plan, "suite")
    assert empty.selected is None and all(row.problem == "not finished" for row in empty.rows)
    write_report(plan)
    made_up.write_results(plan, answers, SETTINGS[:1])
    made_up.write_results(plan, answers, SETTINGS[1:2], tuple(TASKS)[1:])
    work.write_json(tmp_path / "runs" / "run2seed1" / work.FAILURE, {"error": "it broke"})
    results = collect(plan, "suite")
    assert results.left_out == ("a.one",) and results.tasks == 3
    assert [row.seeds for row in results.rows] == [(2, 2), (2, 2), (0, 2)]
    assert [row.problem for row in results.rows] == ["", "", "it broke"]
    assert results.rows[0].scores["supervised", "Summarization"]["0"]["mean"] == pytest.approx(
        50 * sum(by_task["a.two"][0].mean() for by_task in answers[SETTINGS[0]])
    )
    write_report(plan)
    text = (plan.folder / "study.md").read_text()
    assert "100 %: it broke" in text and "a.one" in text


def test_settings_are_compared_on_the_suites_that_both_are_asked(tmp_path, answers, capsys):
    lines = (
        "Design.suites = {'first': (), 'second': 'Suite.max_prompts_per_task = 3'}",
        "Factor.suites = {'2': 'first', 'none': 'second'}",
        "Design.seeds = (4, 5)",
    )
    design, plan = tiny.read_design(tmp_path, *lines), tiny.plan(tmp_path, *lines)
    for row in plan.rows[1:]:
        for evaluation in row.evaluations.values():
            made_up.write_answers(
                work.results_folder(plan.directory, row.runs[0], evaluation), answers["10 %"][0]
            )
    assert study(design, str(plan.directory), compare=("2", "8")) == {}
    told = capsys.readouterr().out
    assert "8 less 2, first" in told and "second: not compared" in told and "of seed 4" in told
    with pytest.raises(InputError, match="'2' and 'none' are asked no suite in common"):
        study(design, str(plan.directory), compare=("2", "none"))
    with pytest.raises(InputError, match="no setting, run or folder '16'"):
        study(design, str(plan.directory), compare=("2", "16"))


def test_the_report_s_files(plan, tmp_path):
    _, page = write_report(plan)
    names = {path.name for path in plan.folder.iterdir()}
    assert {"results.json", "table.csv", "study.md", "tables.tex", "study.html"} <= names
    assert any(name.endswith(".svg") for name in names) and page == plan.folder / "study.html"
    with (plan.folder / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    whole = {
        (line["setting"], line["shots"]): line
        for line in lines
        if (line["level"], line["category"]) == ("", "")
    }
    results = {row.name: row for row in collect(plan, "suite").rows}
    assert len(whole) == 3 * 3
    for (name, shots), line in whole.items():
        assert float(line["mean"]) == results[name].scores[ALL][shots]["mean"] and line["share"] == name
    tex = (plan.folder / "tables.tex").read_text()
    content = [line for line in tex.splitlines() if not line.startswith("%")]
    assert r"Question\_Answering \& more" in tex and r"10 \%" in tex
    assert not any(re.search(r"(?<!\\)[%$#_]", line) for line in content)
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.S):
        rows = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == len(table[0]) - 1 for row in rows)
    reader = _Balanced()
    reader.feed(page.read_text())
    assert not reader.open and "Question_Answering & more" in reader.text
    assert "| 50 % |" in (plan.folder / "study.md").read_text()


def test_a_report_drawn_again_is_the_same(plan):
    write_report(plan)
    first = {path.name: path.read_bytes() for path in plan.folder.iterdir()}
    write_report(plan)
    assert first == {path.name: path.read_bytes() for path in plan.folder.iterdir()}


class _Balanced(html.parser.HTMLParser):
    """Checks that what is opened is closed, and keeps the text."""

    _VOID = ("meta", "br", "link", "input", "hr", "img")

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
