"""What predictions tell beside scores: confusion, changes, samples."""

import pytest

from iml.evaluation.results import samples
from iml.evaluation.results.changes import find_changes
from iml.evaluation.results.confusion import OTHER, confuse
from tests.evaluation.predictions import make_prediction, make_predictions
from tests.evaluation.reports.test_published import make_result


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
