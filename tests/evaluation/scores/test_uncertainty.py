"""Intervals, paired comparison and calibration against scipy, known values and what must hold."""

import dataclasses
import sys

import numpy as np
import pytest

from iml.errors import InputError
from iml.evaluation.metrics import METRICS, Answer
from iml.evaluation.scores import uncertainty
from iml.evaluation.scores.aggregation import aggregate, result_units
from iml.evaluation.scores.calibration import calibrate
from iml.evaluation.scores.comparison import compare
from iml.evaluation.scores.uncertainty import interval
from tasks import opt_tasks
from tests.evaluation.predictions import make_card, make_prediction, make_predictions

RNG = np.random.default_rng(1)
NAMES = ("no", "yes")


@pytest.fixture(autouse=True)
def own_draws(monkeypatch):
    """What a test draws does not depend on those that ran before it."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(1))


def labelled(size, right=0.7):
    truth = RNG.integers(2, size=size)
    found = np.where(RNG.random(size) < right, truth, 1 - truth)
    return [
        Answer(NAMES[f], [NAMES[t]], NAMES, uid=str(i))
        for i, (f, t) in enumerate(zip(found, truth, strict=True))
    ]


@pytest.mark.parametrize("name", ["accuracy", "matthews", "f1"])
def test_intervals_are_scipys(name):
    stats = pytest.importorskip("scipy.stats")
    answers, metric = labelled(200), METRICS[name]
    value, samples = uncertainty.bootstrap(metric, answers, 4000, seed=1)
    statistics = metric.statistics(answers)

    def statistic(index):
        return metric.combine(statistics[np.asarray(index)], np.ones((1, len(index))))[0]

    theirs = stats.bootstrap(
        (np.arange(200),), statistic, n_resamples=4000, vectorized=False, method="percentile", rng=2
    )
    # The spread of a quantile over 4,000 resamples is a tenth of the standard error at most.
    close = theirs.standard_error / 5
    assert value == statistic(np.arange(200))
    assert uncertainty.interval(samples) == pytest.approx(theirs.confidence_interval, abs=close)
    assert samples.std() == pytest.approx(theirs.standard_error, rel=0.06)


def test_what_belongs_together_is_drawn_together():
    """Each example under ten templates tells no more than under one."""
    single = labelled(100)
    tenfold = [answer for answer in single for _ in range(10)]
    alone = np.std(uncertainty.bootstrap(METRICS["accuracy"], single, 2000)[1])
    together = np.std(uncertainty.bootstrap(METRICS["accuracy"], tenfold, 2000)[1])
    apart = [Answer(a.prediction, a.references, uid=str(i)) for i, a in enumerate(tenfold)]
    naive = np.std(uncertainty.bootstrap(METRICS["accuracy"], apart, 2000)[1])
    assert together == pytest.approx(alone, rel=0.1) and naive < 0.4 * together


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_answers_about_one_passage_are_drawn_together(metric):
    """Ten copies of each answer in a passage of their own tell no more than one; MultiRC's card says so."""
    card = make_card("a.x", metrics=(metric, "accuracy"))
    passages = dataclasses.replace(card, drawn_together=opt_tasks.definitions()["multirc"]["drawn_together"])
    answers = labelled(100)
    lines = [
        make_prediction(
            "a.x", 0, 10 * i + k, 0, prediction=a.prediction, references=a.references, candidates=list(NAMES),
            uid=f"validation-{i}-{k // 5}-{k % 5}",
        )
        | {"metrics": {"accuracy": 100.0 * (a.prediction in a.references)}}
        for i, a in enumerate(answers)
        for k in range(10)
    ]  # fmt: skip

    def spread(card, lines):
        scores = aggregate(lines, {"a.x": card}, {"a.x": "supervised"}, resamples=2000)
        # What scores.json tells of the task is enough to draw alike.
        [unit] = result_units(scores, lines, ["a.x"], resamples=2000)
        cell = scores["tasks"]["a.x"]["cells"]["0"]
        assert interval(unit.values[0][1:]) == (cell["low"], cell["high"])
        assert cell["examples"] == len(lines)
        return cell["high"] - cell["low"]

    together = spread(passages, lines)
    assert together == pytest.approx(spread(card, lines[::10]), rel=0.1)
    assert spread(card, lines) < 0.45 * together


def test_a_corpus_metric_is_scored_by_template_and_drawn_by_example():
    card = make_card("a.x", metrics=("matthews", "accuracy"))
    answers = labelled(60)
    lines = [
        make_prediction(
            "a.x",
            0,
            i,
            0,
            prediction=a.prediction,
            references=a.references,
            candidates=list(NAMES),
            template=t,
        )
        | {"metrics": {"accuracy": 100.0 * (a.prediction in a.references)}}
        for t in ("one", "two")
        for i, a in enumerate(answers[:40] if t == "one" else answers)
    ]
    task = aggregate(lines, {"a.x": card}, {"a.x": "supervised"})["tasks"]["a.x"]
    scores = [METRICS["matthews"].combine(METRICS["matthews"].statistics(rows), np.ones((1, len(rows))))[0]
              for rows in (answers[:40], answers)]  # fmt: skip
    cell = task["cells"]["0"]
    assert cell["mean"] == pytest.approx(np.average(scores, weights=[40, 60]))
    assert cell["low"] < cell["mean"] < cell["high"]
    assert task["templates"]["0"] == pytest.approx(
        {"templates": 2, "min": min(scores), "max": max(scores), "std": np.std(scores)}
    )


def results(scores_by_task, **fields):
    """A result of aggregate with its predictions."""
    cards = {name: make_card(name, category=name[2]) for name in scores_by_task}
    lines = [
        line
        for name, scores in scores_by_task.items()
        for line in make_predictions(name, {0: scores}, **fields)
    ]
    return aggregate(lines, cards, dict.fromkeys(cards, "supervised"), resamples=0), lines


def test_a_paired_difference_knows_what_the_prompts_have_in_common():
    hard = RNG.random(100) * 80
    first = results({"a.x": hard, "a.x2": hard, "a.y": hard})
    # Every answer is better by about 5, which unpaired noise of 80 would hide.
    second = results({name: hard + 5 + RNG.normal(size=100) for name in ("a.x", "a.x2", "a.y")})
    found = compare(first, second, resamples=999)
    cell = found["levels"]["supervised"]["0"]
    assert cell["difference"] == pytest.approx(5, abs=0.5) and cell["p"] == pytest.approx(0.002)
    assert 4.5 < cell["low"] < cell["difference"] < cell["high"] < 5.5
    assert found["levels"]["supervised"]["average"] == cell and cell["tasks"] == 3 and found["prompts"] == 300
    assert found["categories"]["supervised"]["x"]["0"]["over_tasks"]["low"] > 4.5
    assert set(found["tasks"]) == {"a.x", "a.x2", "a.y"}
    back = compare(second, first, resamples=999)["levels"]["supervised"]["0"]
    assert (back["difference"], back["low"]) == pytest.approx((-cell["difference"], -cell["high"]))


def test_equal_results_do_not_differ():
    first = results({"a.x": [10, 20], "a.y": [0]})
    cell = compare(first, first)["levels"]["supervised"]["0"]
    assert (cell["difference"], cell["low"], cell["high"], cell["p"]) == (0, 0, 0, 1)


def test_tasks_that_disagree_make_the_wider_interval_wide():
    """Sure of each task, unsure of what a further task would give."""
    tasks = {f"a.x{i}": np.full(50, 50.0) for i in range(6)}
    moved = {name: scores + (30 if i % 2 else -25) for i, (name, scores) in enumerate(tasks.items())}
    cell = compare(results(tasks), results(moved))["levels"]["supervised"]["0"]
    assert cell["difference"] == cell["low"] == cell["high"] == 2.5
    wide = cell["over_tasks"]
    assert wide["low"] < -10 and wide["high"] > 15 and wide["p"] > 0.3


def test_only_prompts_that_both_answered_are_compared():
    first, second = results({"a.x": [0, 0, 0]}), results({"a.x": [30, 30], "a.y": [5]})
    found = compare(first, second)
    assert found["prompts"] == 2 and found["left_out"] == [1, 1] and list(found["tasks"]) == ["a.x"]
    with pytest.raises(InputError, match="no prompt in common"):
        compare(first, results({"a.z": [1]}))


def test_results_by_different_metrics_are_not_compared():
    first, second = results({"a.x": [1]}), results({"a.x": [1]})
    first[0]["tasks"]["a.x"]["metric"] = "bleu"
    with pytest.raises(InputError, match="bleu"):
        compare(first, second)


def test_calibration_by_hand():
    found = calibrate([0.55, 0.65, 0.95, 0.85], [True, False, True, True], bins=2)
    # One bin: |0.75 - 0.75| = 0.
    assert found["ece"] == pytest.approx(0) and [b["examples"] for b in found["bins"]] == [4]
    found = calibrate([0.1, 0.2, 0.9, 1.0], [True, False, True, True], bins=10)
    # |.1 - 1|, |.2 - 0|, |.9 - 1| and |1 - 1|, a quarter each.
    assert found["ece"] == pytest.approx(100 * (0.9 + 0.2 + 0.1 + 0) / 4)


def test_calibration_is_scikit_learns():
    curve = pytest.importorskip(
        "sklearn.calibration", reason="needs scikit-learn, the peer"
    ).calibration_curve
    chances = RNG.random(2000)
    right = RNG.random(2000) < chances**2
    shares, means = curve(right, chances, n_bins=15)
    sizes = np.histogram(chances, np.linspace(0, 1, 16))[0]
    found = calibrate(chances, right)
    assert found["ece"] == pytest.approx(100 * np.average(np.abs(shares - means), weights=sizes[sizes > 0]))
    assert [row["accuracy"] for row in found["bins"]] == pytest.approx(100 * shares)


def test_ranked_answers_are_calibrated_by_their_probabilities():
    lines = [
        make_prediction(
            "a.x", 0, i, 100 * right, metric="accuracy", candidates=["right", "wrong"], picks={"sum_eos": 0},
            scores={"sum_eos": [float(np.log(0.8)), float(np.log(0.2))]},
        )
        for i, right in enumerate([1, 1, 1, 0])
    ]  # fmt: skip
    card = make_card("a.x", metrics=("accuracy",))
    scores = aggregate(lines, {"a.x": card}, {"a.x": "supervised"})
    assert scores["tasks"]["a.x"]["calibration"]["0"]["ece"] == pytest.approx(5)
    assert scores["calibration"]["supervised"]["0"]["examples"] == 4
