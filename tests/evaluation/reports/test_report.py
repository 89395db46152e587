"""Reports: self-contained, whatever the data say, and with the numbers of the scores."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from iml.errors import InputError
from iml.evaluation.reports import report
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import aggregate
from tests.evaluation.predictions import make_card, make_predictions

EVIL = "<script>alert('x')</script> [bold]& | `a` *b*\n\n# heading \ud800"
HEADER = {
    "model": "runs/first",
    "model_hash": "abc123",
    "dtype": "bfloat16",
    "attention": "xla",
    "bos": False,
    "seed": 1,
    "suite": {"name": "validation", "split": "validation"},
    "versions": {"jax": "0.10.2"},
}
VOID = {"meta", "input"}


class Page(HTMLParser):
    """The elements of a page, each closed in its place; the text of each."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.open, self.texts, self.scripts = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open[-1:] == ["script"]:
            self.scripts.append(text)
        # A browser drops the line break at the start of pre.
        self.texts.append(text.removeprefix("\n") if self.open[-1:] == ["pre"] else text)


def make_result(scores, header=HEADER, **fields):
    cards = {
        "a.held": make_card("a.held", category=fields.pop("category", "Word Analogy")),
        "a.known": make_card("a.known", metrics=("accuracy",)),
    }
    levels = {"a.held": "fully_held_out", "a.known": "supervised"}
    held = make_predictions("a.held", {0: scores, 5: scores}, **fields)
    ranked = {"candidates": ["right", "wrong"], "picks": {"sum": 0, "mean_eos": 1}}
    known = make_predictions("a.known", {0: [100, 0], 5: [100, 100]}, "accuracy", **ranked)
    failures = {"a.broken": fields.get("prompt", "IOError: no such file")[:100]}
    return aggregate(held + known, cards, levels, header, failures), held + known


def write(tmp_path, results, titles):
    found = [Result(title, *result) for title, result in zip(titles, results, strict=True)]
    markdown, page = report.write_report(tmp_path, found)
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def test_levels_by_shots_come_first(tmp_path):
    markdown, page = write(tmp_path, [make_result([20, 40])], ["first"])
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert rows[0] == "| level | tasks | examples | 0-shot | 5-shot | average |"
    assert rows[2].startswith("| fully held out | 1 | 2 | 30.0 ")
    assert rows[3].startswith("| supervised | 1 | 2 | 50.0 ")
    # Each level has one category here.
    assert rows[4].startswith("| all categories | 2 | 4 | 40.0 ")
    texts = Page(page).texts
    assert texts.index("Levels") < texts.index("Categories") < texts.index("Tasks")
    assert "30.0" in texts and "75.0" in texts


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path):
    _, text = write(tmp_path, [make_result([20, 40]), make_result([60, 40])], ["before", "after"])
    page = Page(text)
    assert not {"link", "img", "iframe", "object", "base"} & set(page.names)
    assert not {"src", "onclick"} & {name for name, _ in page.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    policy = next(value for name, value in page.attributes if value and value.startswith("default-src"))
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and policy.endswith(f"script-src 'sha256-{digest}'")
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    assert "svg" in page.names and "prefers-color-scheme" in text


def test_whatever_the_data_say_is_shown_as_text(tmp_path):
    fields = {
        "prompt": "\n" + EVIL,
        "prediction": "\n" + EVIL,
        "references": [EVIL],
        "category": EVIL,
        "uid": EVIL,
    }
    markdown, text = write(tmp_path, [make_result([20], {**HEADER, "model": EVIL}, **fields)], [EVIL])
    page = Page(text)
    assert page.names.count("script") == 1
    assert sum("<script>" in found for found in page.texts) >= 6
    assert page.texts.count("\n" + EVIL.replace("\ud800", "\N{REPLACEMENT CHARACTER}")) >= 2
    assert "<script>" not in markdown.replace("\\<", "")
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables if line.startswith("| fully")}
    assert columns == {7}
    assert markdown.count("\n# ") == 0


def test_differences_are_from_the_first_result(tmp_path):
    results = [make_result([20, 40]), make_result([60, 40]), make_result([10, 20])]
    markdown, page = write(tmp_path, results, ["one", "two", "three"])
    row = next(line for line in markdown.splitlines() if line.startswith("| fully held out"))
    assert re.findall(r"\(([+-][\d.]+)\)", row) == ["+20.0", "-15.0"] * 3
    texts = Page(page).texts
    assert "+20.0" in texts and "-15.0" in texts
    # Every result's answer to one prompt.
    prompt = texts.index("question 0")
    assert [text.partition(":")[0] for text in texts[prompt + 1 : prompt + 7 : 2]] == ["one", "two", "three"]


def test_results_that_were_not_asked_the_same_carry_a_warning(tmp_path):
    results = [make_result([20]), make_result([20], {**HEADER, "seed": 2})]
    markdown, page = write(tmp_path, results, ["one", "two"])
    assert "differ in their seed: 1, 2" in markdown
    assert "The results differ in their seed: 1, 2." in Page(page).texts
    fewer = make_result([20], {**HEADER, "dtype": "other", "suite": {**HEADER["suite"], "shots": [0]}})
    markdown, _ = write(tmp_path, [make_result([20]), fewer], ["one", "two"])
    assert "differ in their dtype" in markdown and "differ in their suite shots" in markdown
    suite = {
        "primary_scorer": "mean",
        "decoding": {"beams": 1, "stop": ("\n",)},
        "format": {"separator": "x"},
    }
    first, read = ({**HEADER, "bos": False, "suite": HEADER["suite"] | suite} for _ in range(2))
    same, _ = write(
        tmp_path, [make_result([20], h) for h in (first, json.loads(json.dumps(read)))], ["1", "2"]
    )
    assert "differ in" not in same
    decoding = suite["decoding"] | {"beams": 4}
    other = suite | {"primary_scorer": "sum", "decoding": decoding, "format": {"separator": "y"}}
    second = {**first, "bos": "the server's", "suite": HEADER["suite"] | other}
    _, page = write(tmp_path, [make_result([20], header) for header in (first, second)], ["one", "two"])
    told = [text for text in Page(page).texts if "differ in" in text]
    assert {text.partition(" in their ")[2] for text in told} == {
        "bos: False, the server's.",
        "suite primary_scorer: mean, sum.",
        "suite decoding beams: 1, 4.",
        "suite format separator: x, y.",
    }


def test_facts_scorers_failures_and_samples_are_in_the_page(tmp_path):
    markdown, page = write(tmp_path, [make_result([100, 40])], ["first"])
    texts = Page(page).texts
    for wanted in ("abc123", "bfloat16", "xla", "False", "0.10.2", "mean_eos", "a.broken", "question 1"):
        assert wanted in texts
    for wanted in (
        "abc123",
        "| sum | supervised | 1 | 100.0",
        "mean\\_eos",
        "a.broken: IOError: no such file",
    ):
        assert wanted in markdown


def test_a_task_that_one_result_lacks_is_left_blank_and_told(tmp_path):
    first = make_result([20])
    scores, lines = make_result([30])
    del scores["tasks"]["a.held"], scores["levels"]["fully_held_out"]
    lines = [line for line in lines if line["task"] != "a.held"]
    markdown, _ = write(tmp_path, [first, (scores, lines)], ["one", "two"])
    assert "two lacks 1 tasks" in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| fully held out"))
    assert row.count("–") == 3


def test_long_prompts_are_cut_in_the_middle(tmp_path):
    _, page = write(tmp_path, [make_result([20], prompt="begin" + "x" * 10**5 + "end")], ["first"])
    assert len(page) < 60_000
    assert any(text.startswith("begin") and text.endswith("end") for text in Page(page).texts)


def test_scores_are_read_as_written_and_damage_is_told(tmp_path):
    scores, _ = make_result([20])
    report.write_scores(tmp_path, scores)
    assert report.read_scores(tmp_path) == scores
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        report.read_scores(tmp_path)
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(InputError, match="not the scores"):
        report.read_scores(tmp_path)
    with pytest.raises(InputError, match="no scores here"):
        report.read_scores(tmp_path / "none")


def test_the_summary_prints_levels_and_takes_no_markup_from_data(tmp_path):
    console = Console(file=io.StringIO(), width=160)
    results = [Result("[red]one[/red]", make_result([20])[0]), Result("two", make_result([40])[0])]
    report.print_summary(results, console)
    printed = console.file.getvalue()
    assert "[red]one[/red]" in printed and "40.0 (+20.0)" in printed and "tasks left out: 1" in printed


def test_results_are_named_by_the_ends_of_their_paths():
    assert report.name_results(["runs/a/untuned", "runs/a/tuned"]) == ["untuned", "tuned"]
    assert report.name_results(["runs/a/tuned", "runs/b/tuned"]) == ["a/tuned", "b/tuned"]
    assert report.name_results(["x", "x"]) == ["1: x", "2: x"]
