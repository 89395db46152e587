"""ROUGE and exact match equal Super-NaturalInstructions' own rule on real tasks, task by task and all together.

The rule is written here a second time, in its simplest form, over rouge-score itself. The means over instances are
held against figures that the official code itself gave (`super_ni_verdicts.json`).
"""

import functools
import json
import pathlib
import string

import pytest

from iml.evaluation import metrics
from iml.evaluation.reports import tables
from iml.evaluation.scores.aggregation import aggregate
from tests.evaluation.predictions import make_card, make_prediction

VERDICTS = json.loads((pathlib.Path(__file__).parent / "super_ni_verdicts.json").read_text())

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

TASKS = 200


def official_normal(text):
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(text.split())


def official_scores(scorer, predictions, references):
    """Means of exact match and of what the scorer knows of ROUGE; of several references the best."""
    totals = dict.fromkeys(["exact_match", *scorer.rouge_types], 0.0)
    for prediction, right in zip(predictions, references, strict=True):
        found = [scorer.score(prediction=prediction, target=text) for text in right]
        for kind in scorer.rouge_types:
            totals[kind] += max(scores[kind].fmeasure for scores in found)
        totals["exact_match"] += max(official_normal(prediction) == official_normal(text) for text in right)
    return {kind: 100.0 * total / len(predictions) for kind, total in totals.items()}


def read_task(file, most=None):
    """References of a task's first instances, and predictions from them.

    What another instance has for an answer: right now and then, near often; some are joined to their own, and case,
    punctuation and white space, which must not matter, are changed in others. Some are its own.
    """
    instances = json.loads(file.read_text(encoding="utf-8"))["Instances"][:most]
    references = [instance["output"] for instance in instances]
    predictions = [texts[-1] for texts in references[1:] + references[:1]]
    predictions[::4] = [f"{a[0]} {b}" for a, b in zip(references[::4], predictions[::4], strict=True)]
    predictions[1::4] = [f" {text.upper()}. " for text in predictions[1::4]]
    predictions[3::8] = [texts[0].title() for texts in references[3::8]]
    return predictions, references


KINDS = {"rouge_l": "rougeL", "rouge_1": "rouge1", "rouge_2": "rouge2", "exact_match": "exact_match"}


@functools.cache
def compared(home):
    """By metric, of each task the score here and by the official rule."""
    files = sorted((home / "super_natural_instructions" / "tasks").glob("*.json"))[:TASKS]
    if len(files) < TASKS:
        pytest.skip(f"needs {TASKS} task files of Super-NaturalInstructions")
    scorer = rouge_scorer.RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=True)
    found = {name: [] for name in KINDS}
    for file in files:
        predictions, references = read_task(file)
        expected = official_scores(scorer, predictions, references)
        answers = [metrics.Answer(*pair) for pair in zip(predictions, references, strict=True)]
        for name, kind in KINDS.items():
            found[name].append((file.name, metrics.score(name, answers), expected[kind]))
    return found


@pytest.mark.parametrize(
    ("name", "least"), [("rouge_l", 150), ("rouge_1", 150), ("rouge_2", 90), ("exact_match", 15)]
)
def test_metrics_equal_the_official_rule_on_real_tasks(real_data, name, least):
    rows = compared(pathlib.Path(real_data))[name]
    assert [row for row in rows if row[1] != pytest.approx(row[2], abs=1e-9)] == []
    # The agreement is not one of zeros (ROUGE of other scripts than Latin is).
    assert sum(score > 0 for _, score, _ in rows) > least


def test_means_over_instances_are_those_of_the_official_code(real_data):
    """On tasks of unlike sizes, for among equals the means of means would be the same."""
    cards, lines = {}, []
    for name, (size, *_) in VERDICTS["tasks"].items():
        file = pathlib.Path(real_data, "super_natural_instructions", "tasks", f"{name}.json")
        if not file.exists():
            pytest.skip(f"needs {name} of Super-NaturalInstructions")
        category = json.loads(file.read_text(encoding="utf-8"))["Categories"][0]
        cards[name] = make_card(name, category=category, metrics=VERDICTS["metrics"])
        predictions, references = read_task(file, size)
        answers = [metrics.Answer(*pair) for pair in zip(predictions, references, strict=True)]
        values = metrics.measure(VERDICTS["metrics"], answers).values
        for row, found in enumerate(zip(*values.values(), strict=True)):
            line = make_prediction(name, 0, row, 0)
            lines.append(line | {"metrics": dict(zip(values, found, strict=True))})
    levels = dict.fromkeys(cards, "fully_held_out")
    scores = aggregate(lines, cards, levels, {"suite": {"over_instances": True}}, resamples=20)
    for place, metric in enumerate(VERDICTS["metrics"], start=1):
        found = scores["instances"][metric]
        cells = {"all": found["overall"], **found["categories"]}
        for name, expected in VERDICTS["groups"].items():
            cell = cells[name]["0"]
            assert (cell["examples"], cell["mean"]) == (expected[0], pytest.approx(expected[place], abs=6e-5))
            assert cell["low"] <= cell["mean"] <= cell["high"]
        assert cells.keys() == VERDICTS["groups"].keys()
        for name, expected in VERDICTS["tasks"].items():
            told = scores["tasks"][name]["metrics"][metric]["0"]
            assert told == pytest.approx(expected[place], abs=6e-5), name
    assert abs(scores["overall"]["0"]["mean"] - VERDICTS["groups"]["all"][1]) > 0.5
    rows = {row.name: row.details for row in tables.instance_table([scores]).rows}
    assert rows.keys() == set(VERDICTS["metrics"]) and len(tables.instance_table([scores]).rows) == 39
    assert aggregate(lines, cards, levels, resamples=0)["instances"] == {}
