"""GLUE's paraphrase and similarity metrics and SQuAD's, on real references, against the public scorers.

The answers are those of plain rules that look at the texts, so that they err as models do.
"""

import csv
import itertools
import json
import re

import numpy as np
import pytest

from iml.evaluation.metrics import METRICS, Answer, score


def overlap(first, second):
    """Share of the words of two texts that both have."""
    words = [set(re.findall(r"\w+", text.lower())) for text in (first, second)]
    return len(words[0] & words[1]) / max(len(words[0] | words[1]), 1)


def mrpc(real_data):
    """(label, first sentence, second) of Microsoft's own files."""
    for name in ("train", "test"):
        path = real_data / "t5" / "glue" / "MRPC" / f"msr_paraphrase_{name}.txt"
        rows = csv.reader(path.open(encoding="utf-8-sig"), delimiter="\t", quoting=csv.QUOTE_NONE)
        yield from ((int(row[0]), *row[3:]) for row in itertools.islice(rows, 1, None))


def qqp(real_data):
    for name in ("train", "dev"):
        path = real_data / "raw" / "cl_benchmark" / "QQP" / "QQP" / f"{name}.json"
        for row in json.loads(path.read_text()):
            yield int(row["label"] == "True"), *row["sentence"].split("\nsecond sentence: ")
    for path in sorted((real_data / "crossfit" / "tsv" / "glue-qqp").glob("*.tsv")):
        for line in path.read_text().splitlines():
            questions, label = line.split("\t")
            yield int(label == "duplicate"), *questions.split(" [SEP] question 2: ")


@pytest.mark.parametrize(("read", "count"), [(mrpc, 1400), (qqp, 152)])
def test_paraphrase_metrics_are_scikit_learns_and_lm_evals(real_data, read, count):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, the peer")
    lm_eval = pytest.importorskip("lm_eval.api.metrics", reason="needs lm_eval, the peer")
    rows = list(read(real_data))
    labels = [label for label, *_ in rows]
    found = [int(overlap(*texts) > 0.4) for _, *texts in rows]
    names = ("not equivalent", "equivalent")
    answers = [Answer(names[a], [names[b]], names) for a, b in zip(found, labels, strict=True)]
    assert len(answers) == count
    expected = {"accuracy": sklearn.accuracy_score(labels, found), "f1": sklearn.f1_score(labels, found)}
    assert expected["f1"] == lm_eval.f1_score(list(zip(labels, found, strict=True)))
    for name, value in expected.items():
        assert score(name, answers) == pytest.approx(100 * value, abs=1e-9) and 0.3 < value < 1


def test_similarity_metrics_are_scipys_on_sts_b(real_data):
    """The STS-B rows at hand are Super-NI's, whose similarities are rounded to whole numbers."""
    stats = pytest.importorskip("scipy.stats")
    name = "task1347_glue_sts-b_similarity_classification.json"
    task = json.loads((real_data / "super_natural_instructions" / "tasks" / name).read_text())
    rows = [(row["input"], row["output"]) for row in task["Instances"]]
    right = [float(output[0]) for _, output in rows]
    found = [round(5 * overlap(*text.split("Sentence 2: ")), 1) for text, _ in rows]
    answers = [Answer(f"{a}", output) for a, (_, output) in zip(found, rows, strict=True)]
    assert len(answers) == 24
    expected = {
        "pearson": stats.pearsonr(found, right).statistic,
        "spearman": stats.spearmanr(found, right).statistic,
    }
    for name, value in expected.items():
        assert score(name, answers) == pytest.approx(100 * value, abs=1e-9) and 0.1 < value < 1


def squad(real_data):
    """Right answers, several for some questions, with the passage."""
    for name in ("squad.json", "squad2.json"):
        data = json.loads((real_data / "t5" / "format_fixtures" / "rc" / name).read_text())["data"]
        for paragraph in (paragraph for article in data for paragraph in article["paragraphs"]):
            for question in paragraph["qas"]:
                # The official script takes the empty text for the answer where there is none.
                texts = [answer["text"] for answer in question["answers"]]
                yield texts or [""], paragraph["context"]
    for name in ("with", "no"):
        for path in sorted((real_data / "crossfit" / "tsv" / f"squad-{name}_context").glob("*.tsv")):
            for line in path.read_text().splitlines():
                source, answer = line.split("\t")
                yield [answer], source


def perturbed(answers, passage, rng):
    """Answers as models give them: right, cut, with too much, in other words, or not at all."""
    answer = str(rng.choice(answers))
    words, others = answer.split(), passage.split()
    place = int(rng.integers(len(others)))
    return [
        answer,
        f"The {answer.upper()}.",
        " ".join(words[1:]),
        " ".join(words[: max(1, len(words) // 2)]),
        " ".join((*words, *others[place : place + 3])),
        " ".join(others[place : place + 4]),
        f"It is an {answer}, I think",
        answer.replace(" ", "-"),
        "".join(reversed(words)),
        f"{answer} {answer}",
    ]


def test_squads_metrics_are_torchmetrics(real_data):
    peer = pytest.importorskip("torchmetrics.functional.text", reason="needs torchmetrics, the peer")
    rng = np.random.default_rng(0)
    rows = [
        Answer(text, answers)
        for answers, passage in squad(real_data)
        for text in perturbed(answers, passage, rng)
    ]
    # That of SQuAD 1.1 knows no question without an answer.
    asked = [row for row in rows if row.references != [""] and row.prediction]
    assert len(asked) > 1000
    theirs = [
        peer.squad(
            [{"prediction_text": row.prediction, "id": "0"}],
            [{"answers": {"answer_start": [0], "text": list(row.references)}, "id": "0"}],
        )
        for row in asked
    ]
    for name, key in (("squad_em", "exact_match"), ("squad_f1", "f1")):
        expected = [float(row[key]) for row in theirs]
        assert METRICS[name].values(asked) == pytest.approx(expected, abs=1e-4)
        assert 10 < np.mean(expected) < 90
