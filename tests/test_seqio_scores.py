"""A SeqIO task's own metrics and postprocessing give what `seqio.Evaluator` gives."""

import pathlib

import numpy as np
import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge, seqio_scores
from iml.bench import registry
from iml.bench.card import TaskCard
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.seqio_bridge import seqio
from tasks import pocket
from tests.evaluation.models import small_model

POCKET = pathlib.Path(pocket.__file__).parent / "vocabulary"
LINES = ["3 plus 4|7", "two plus two|four", "9 minus 1|8", "a b c|d"]


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setenv(seqio_bridge.VOCABULARY_VARIABLE, str(POCKET))
    yield
    for name in registry.names():
        seqio_bridge.remove_task(name)


def part(dataset):
    """A preprocessor as SeqIO's users write them: it yields no uid."""
    tf = seqio_bridge.tf

    def convert(line):
        parts = tf.strings.split(line, "|")
        return {"inputs": parts[0], "targets": parts[1]}

    return dataset.map(convert)


def upper(text, example=None, is_target=False):
    """Sees the example, and which of the two it is asked for."""
    return (text.strip().upper(), len(example["inputs_pretokenized"]), is_target)


def lengths(targets, predictions):
    assert all(is_target for *_, is_target in targets) and not any(is_target for *_, is_target in predictions)
    return {
        "difference": np.mean(
            [abs(len(a) - len(b)) for (a, *_), (b, *_) in zip(targets, predictions, strict=True)]
        ),
        "source": float(np.mean([length for _, length, _ in predictions])),
    }


def surprise(targets, scores):
    return {"surprise": seqio.metrics.Scalar(-float(np.mean(scores))), "first": scores[0]}


def add(tmp_path, **options):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(LINES) + "\n")
    source = seqio.TextLineDataSource({"validation": str(file)})
    seqio_bridge.add_task(
        TaskCard("own.sums", "own", "Mathematics"), source=source, preprocessors=[part], **options
    )


def prediction_lines(answers, rows):
    return [
        {
            "task": "own.sums",
            "split": "validation",
            "shots": 0,
            "uid": f"validation-{row}",
            "prompt": LINES[row].partition("|")[0],
            "prediction": answers[row],
        }
        for row in rows
    ]


def test_all_three_hooks_give_the_evaluators_values(tmp_path):
    add(tmp_path, metric_fns=[lengths, surprise], postprocess_fn=upper)
    engine = OPTEngine(small_model(tmp_path, Vocabulary(POCKET)))
    pairs = [line.split("|") for line in LINES]
    answers = engine.generate([source for source, _ in pairs], Decoding(max_new_tokens=6))
    vocabulary = Vocabulary(POCKET)

    def predict(dataset):
        ids = [vocabulary.encode(answer.text) for answer in answers]
        width = max(map(len, ids)) + 1
        return [(int(n), ids[int(n)] + [Vocabulary.EOS] * (width - len(ids[int(n)]))) for n, _ in dataset]

    def likelihood(dataset):
        [*found] = engine.likelihoods([(source, (target,)) for source, target in pairs])
        return [
            (int(number), found[int(number)][0].text + found[int(number)][0].eos) for number, _ in dataset
        ]

    evaluator = seqio.Evaluator("own.sums", seqio.EncDecFeatureConverter(pack=False))
    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict, score_fn=likelihood)
    expected = {key: getattr(value, "value", value) for key, value in metrics.result()["own.sums"].items()}
    texts = [answer.text for answer in answers]
    found = seqio_scores.score("own.sums", prediction_lines(texts, range(4)), engine)
    assert found == pytest.approx(expected, rel=1e-5) and set(found) == {
        "difference",
        "source",
        "surprise",
        "first",
    }
    # Rows may be drawn, in any order.
    some = seqio_scores.score_all(prediction_lines(texts, [2, 0]), engine)["own.sums"]["0"]
    assert some["source"] == np.mean([len(LINES[2].partition("|")[0]), len(LINES[0].partition("|")[0])])


def test_a_task_scored_by_its_card_is_left_to_it(tmp_path):
    add(tmp_path)
    assert seqio_scores.score_all(prediction_lines(["7"] * 4, range(4)), engine=None) == {}


def test_a_store_of_other_files_is_told(tmp_path):
    add(tmp_path, metric_fns=[lengths])
    lines = [{**prediction_lines(["7"], [0])[0], "uid": "validation-9"}]
    with pytest.raises(InputError, match="no example 'validation-9'"):
        seqio_scores.score("own.sums", lines, engine=None)
