"""Every metric equals the public scorer of its field, on real references where the peer takes texts.

Predictions are drawn from the references of the same set, so that they are right, near and wrong in turn.
"""

import dataclasses
import importlib.util
import json
import pathlib
import re
import sys
import types

import numpy as np
import pytest

from iml.evaluation.metrics import METRICS, Answer, score
from iml.evaluation.metrics.labels import probabilities

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_draws(monkeypatch):
    """What a test draws does not depend on those that ran before it."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(0))


def guesses(labels, names, right=0.6):
    return [label if RNG.random() < right else str(RNG.choice(names)) for label in labels]


def read_labels(real_data, task):
    """Labels of real sets, with the candidates in the order of their numbers."""
    if task == "cola":
        path = real_data / "t5" / "glue" / "CoLA"
        file = next(file for file in sorted(path.iterdir()) if "dev" in file.name)
        numbers = [line.split("\t")[1] for line in file.read_text().splitlines()]
        return [("unacceptable", "acceptable")[int(n)] for n in numbers], ("unacceptable", "acceptable")
    names = {"CB": ("entailment", "contradiction", "neutral"), "WiC": ("False", "True")}[task]
    lines = (real_data / "t5" / "superglue" / task / "train.jsonl").read_text().splitlines()
    return [str(json.loads(line)["label"]) for line in lines], names


def lm_evals(task, monkeypatch):
    """lm_eval's scorers of a task of SuperGLUE, whose folder is no package."""
    root = pytest.importorskip("lm_eval", reason="needs lm_eval, the peer").__path__[0]
    path = pathlib.Path(root, "tasks", "super_glue", task, "t5_utils.py")
    # Of this the scorers use nothing, and it needs pandas.
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(Dataset=None))
    spec = importlib.util.spec_from_file_location(f"lm_eval_{task}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["cola", "CB", "WiC"])
def test_classification_is_scikit_learns(real_data, task):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, the peer")
    labels, names = read_labels(real_data, task)
    found = guesses(labels, names)
    scores = RNG.normal(size=(len(labels), len(names))).round(1)
    scores[np.arange(len(labels)), [names.index(label) for label in labels]] += 0.5
    answers = [
        Answer(*row) for row in zip(found, [[x] for x in labels], [names] * len(labels), scores, strict=True)
    ]
    chances = np.stack([probabilities(row) for row in scores]).round(12)
    expected = {
        "accuracy": sklearn.accuracy_score(labels, found),
        "macro_f1": sklearn.f1_score(labels, found, average="macro"),
        "balanced_accuracy": sklearn.balanced_accuracy_score(labels, found),
        "matthews": sklearn.matthews_corrcoef(labels, found),
    }
    if len(names) == 2:
        positive = np.array(labels) == names[1]
        expected["f1"] = sklearn.f1_score(positive, np.array(found) == names[1])
        expected["auc_roc"] = sklearn.roc_auc_score(positive, chances[:, 1])
    else:
        order = np.argsort(names)
        expected["auc_roc"] = sklearn.roc_auc_score(labels, chances[:, order], multi_class="ovr")
    assert {name: score(name, answers) for name in expected} == pytest.approx(
        {name: 100 * value for name, value in expected.items()}, abs=1e-9
    )


def test_an_answer_that_is_no_class_counts_against_the_right_one_alone():
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, the peer")
    labels, found = ["a", "a", "b", "b"], ["a", "what?", "b", "a"]
    answers = [Answer(x, [y]) for x, y in zip(found, labels, strict=True)]
    expected = sklearn.f1_score(labels, found, average="macro", labels=["a", "b"])
    assert score("macro_f1", answers) == pytest.approx(100 * expected)
    assert score("matthews", answers) == pytest.approx(100 * sklearn.matthews_corrcoef(labels, found))


def test_multirc_is_lm_evals(real_data, monkeypatch):
    peer = lm_evals("multirc", monkeypatch)
    pytest.importorskip("sklearn.metrics", reason="lm_eval's F1 needs scikit-learn")
    answers, theirs = [], []
    for line in (real_data / "t5" / "superglue" / "MultiRC" / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        for number, question in enumerate(record["passage"]["questions"]):
            for place, answer in enumerate(question["answers"]):
                right = ("False", "True")[answer["label"]]
                found = guesses([right], ("False", "True"), right=0.8)[0]
                uid = f"{record['idx']}-{number}-{place}"
                answers.append(Answer(found, [right], ("False", "True"), (), uid))
                theirs.append(([found], [f"{record['idx']}.{number}_{right}"]))
    assert len(answers) > 100
    assert score("f1", answers) == pytest.approx(100 * peer.agg_f1([peer.f1(*pair) for pair in theirs]))
    exact = score("multirc_em", answers)
    assert exact == pytest.approx(100 * peer.agg_em([peer.em(*pair) for pair in theirs])) and 0 < exact < 100


def record_answers(real_data):
    for line in (real_data / "t5" / "superglue" / "ReCoRD" / "train.jsonl").read_text().splitlines():
        passage = json.loads(line)
        text = passage["passage"]["text"]
        spans = [text[span["start"] : span["end"] + 1] for span in passage["passage"]["entities"]]
        for query in passage["qas"]:
            right = [answer["text"] for answer in query["answers"]]
            yield Answer(f"the {RNG.choice(spans)}!" if RNG.random() < 0.5 else str(RNG.choice(right)), right)


def test_squads_em_and_f1_are_those_of_record(real_data, monkeypatch):
    peer = lm_evals("record", monkeypatch)
    answers = [
        *record_answers(real_data),
        Answer("The", ["a"]),
        Answer("a b", ["B.", "c"]),
        Answer("x", [""]),
    ]
    # An underscore parts the question from its answer there.
    answers = [a for a in answers if "_" not in "".join((a.prediction, *a.references))]
    for name, theirs in (("squad_em", peer.squad_em_agg), ("squad_f1", peer.squad_f1_agg)):
        expected = [
            100 * theirs([(a.prediction, f"q_{right}") for right in a.references]) for a in answers[:-3]
        ]
        assert METRICS[name].values(answers[:-3]) == pytest.approx(expected)
        assert 0 < np.mean(expected) < 100
    # Two texts of which nothing is left are the same (`evaluate-v2.0.py`).
    assert (
        METRICS["squad_f1"].values(answers[-3:]) == METRICS["squad_em"].values(answers[-3:]) == [100, 100, 0]
    )


def test_corpus_bleu_and_chrf_are_sacrebleus(real_data):
    sacrebleu = pytest.importorskip("sacrebleu")
    rows = json.loads((real_data / "unifiedskg" / "dart" / "dart-v1.1.1-full-dev.json").read_text())
    references = [[note["text"] for note in row["annotations"]] for row in rows]
    found = [refs[-1].replace(",", " ,") for refs in references[1:] + references[:1]]
    found[::3] = [f"{a[0][: len(a[0]) // 2]} {b}" for a, b in zip(references[::3], found[::3], strict=True)]
    longest = max(map(len, references))
    streams = [[refs[i] if i < len(refs) else None for refs in references] for i in range(longest)]
    answers = [Answer(*pair) for pair in zip(found, references, strict=True)]
    assert score("bleu", answers) == pytest.approx(sacrebleu.corpus_bleu(found, streams, force=True).score)
    assert score("chrf", answers) == pytest.approx(sacrebleu.corpus_chrf(found, streams).score)


def test_correlations_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    right = RNG.integers(0, 26, 300) / 5
    found = np.clip(right + RNG.normal(size=300), 0, 5).round(1)
    answers = [Answer(f"{a}", [f"{b:.1f}"]) for a, b in zip(found, right, strict=True)]
    assert score("pearson", answers) == pytest.approx(100 * stats.pearsonr(found, right).statistic)
    assert score("spearman", answers) == pytest.approx(100 * stats.spearmanr(found, right).statistic)
    assert score("spearman", [Answer("3", ["1"]), Answer("3", ["2"])]) == 0


def test_number_match_is_gsm8ks(real_data):
    lines = (real_data / "reasoning" / "gsm8k" / "test.jsonl").read_text().splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    official = [re.search(r"#### (\-?[0-9\.\,]+)", text)[1].replace(",", "") for text in solutions]
    metric = METRICS["number_match"]
    others = official[1:] + official[:1]
    texts = [f"So 1 + 1 = 2. The answer is ${number}." for number in others]
    expected = [100.0 * (a == b) for a, b in zip(official, others, strict=True)]
    assert metric.values(
        [Answer(*pair) for pair in zip(solutions, [[n] for n in official], strict=True)]
    ) == [100.0] * len(solutions)
    found = metric.values([Answer(text, [right]) for text, right in zip(texts, solutions, strict=True)])
    assert found == expected and 0 < sum(expected) < 100 * len(expected)


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("#### 1,234", "#### 1234", True),
        ("The answer is 18.", "18.0", True),
        ("Half of 10 is 5, so 5", "#### 5", True),
        ("The answer is 7. Then 8.", "7", True),
        ("It is -3", "#### -3", True),
        ("none", "#### 3", False),
    ],
)
def test_where_a_number_is_found(prediction, reference, right):
    assert score("number_match", [Answer(prediction, [reference])]) == 100 * right


@pytest.mark.parametrize(
    ("metric", "prediction", "reference", "expected"),
    [
        # What UnifiedSKG's evaluators (commit of 2022-10, `metrics/`) say of these pairs.
        ("denotation", "b, a", "a, b", 100),
        ("denotation", "5.0, x", "x, 5", 100),
        ("denotation", "a, a", "a", 0),
        ("denotation", "A", "a", 0),
        ("joint_goal", "hotel area east, hotel stars none", "hotel area east", 100),
        ("joint_goal", "hotel book stay 3, hotel area east", "hotel area east, hotel book stay 3", 100),
        ("joint_goal", "hotel area west", "hotel area east", 0),
        ("joint_goal", "hotel", "train day none", 100),
        ("slot_f1", "hotel area east, hotel stars 4", "hotel area east, hotel type inn, taxi to x", 40),
        ("slot_f1", "none", "hotel area not mentioned", 100),
        ("query_match", 'SELECT a FROM t WHERE x = "New York" ;', "select a from t where x='New York'", 100),
        ("query_match", "select a from t where x = 'new york'", "select a from t where x = 'New York'", 0),
        ("query_match", "select a , b from t", "select b , a from t", 0),
    ],
)
def test_structures(metric, prediction, reference, expected):
    assert score(metric, [Answer(prediction, [reference])]) == pytest.approx(expected)


def test_a_weighted_set_scores_like_the_answers_repeated(tmp_path):
    """This is what bootstrap rests on."""
    (tmp_path / "kvret_entities.json").write_text(json.dumps({"verdict": ["no", "yes"]}))
    databases = str(tmp_path)
    names = ("no", "yes")
    answers = []
    for number in range(40):
        right = str(RNG.choice(names))
        scores = RNG.normal(size=2)
        uid = f"{number // 10}-{number // 5}-{number}"
        answers.append(
            Answer(names[int(np.argmax(scores))], [right], names, scores, uid, databases=databases)
        )
    numbers = [
        Answer(f"{RNG.integers(5)} of a b", [f"{RNG.integers(5)} of a c", "x"], uid=a.uid) for a in answers
    ]
    # These are means like others, of answers that have a database.
    for name in METRICS.keys() - {"exact_set_match", "execution"}:
        metric = METRICS[name]
        given = numbers if name in ("pearson", "spearman", "bleu", "chrf", "squad_f1", "rouge_l") else answers
        times = RNG.integers(0, 3, size=8).repeat(5)
        repeated = []
        for copy in range(2):
            # A question drawn twice is two questions.
            repeated += [
                dataclasses.replace(a, uid=f"{copy}{a.uid}")
                for a, count in zip(given, times, strict=True)
                if count > copy
            ]
        weighted = metric.combine(metric.statistics(given), times[None].astype(float))[0]
        assert weighted == pytest.approx(score(name, repeated), abs=1e-9), name
