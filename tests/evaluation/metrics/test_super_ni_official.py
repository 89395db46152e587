"""ROUGE-L and exact match equal Super-NaturalInstructions' own rule on real tasks.

The rule is written here a second time, in its simplest form, over rouge-score itself.
"""

import json
import string

import pytest

from iml.evaluation import metrics

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

TASKS = 200


def official_normal(text):
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(text.split())


def official_scores(scorer, predictions, references):
    rouge = exact = 0.0
    for prediction, right in zip(predictions, references, strict=True):
        rouge += max(scorer.score(prediction=prediction, target=text)["rougeL"].fmeasure for text in right)
        exact += max(float(official_normal(prediction) == official_normal(text)) for text in right)
    return 100.0 * rouge / len(predictions), 100.0 * exact / len(predictions)


def test_metrics_equal_the_official_rule_on_real_tasks(real_data):
    files = sorted((real_data / "super_natural_instructions" / "tasks").glob("*.json"))[:TASKS]
    if len(files) < TASKS:
        pytest.skip(f"needs {TASKS} task files of Super-NaturalInstructions")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    rouges, exacts = [], []
    for file in files:
        instances = json.loads(file.read_text(encoding="utf-8"))["Instances"]
        references = [instance["output"] for instance in instances]
        # What another instance has for an answer: right now and then, near often; some are joined to their
        # own, and case, punctuation and white space, which must not matter, are changed in others.
        predictions = [texts[-1] for texts in references[1:] + references[:1]]
        predictions[::4] = [f"{a[0]} {b}" for a, b in zip(references[::4], predictions[::4], strict=True)]
        predictions[1::4] = [f" {text.upper()}. " for text in predictions[1::4]]
        expected = official_scores(scorer, predictions, references)
        answers = [metrics.Answer(*pair) for pair in zip(predictions, references, strict=True)]
        found = metrics.score("rouge_l", answers), metrics.score("exact_match", answers)
        assert found == pytest.approx(expected, abs=1e-9), file.name
        rouges.append(found[0])
        exacts.append(found[1])
    # The agreement is not one of zeros (ROUGE of other scripts than Latin is).
    assert sum(score > 0 for score in rouges) > 150 and sum(score > 0 for score in exacts) > 15
