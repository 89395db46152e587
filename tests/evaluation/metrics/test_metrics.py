"""Metrics on small cases whose values are known."""

import pytest

from iml.errors import InputError
from iml.evaluation import metrics


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The Answer! ", "the answer"),
        ("a\tb\n c", "a b c"),
        ("don't", "dont"),
        ("«Oui» – non", "«oui» – non"),
        ("...", ""),
    ],
)
def test_normalisation_keeps_articles_and_all_but_ascii_punctuation(text, normal):
    assert metrics.normalize_answer(text) == normal


def test_accuracy_ignores_white_space_at_the_ends_alone():
    assert metrics.accuracy(" yes\n", ["no", "yes"]) == 100
    assert metrics.accuracy("Yes", ["yes"]) == 0
    assert metrics.accuracy("yes", []) == 0


def test_exact_match_takes_the_best_reference():
    assert metrics.exact_match("The cat.", ["a dog", "the cat"]) == 100
    assert metrics.exact_match("cat", ["the cat"]) == 0


@pytest.mark.parametrize(
    ("prediction", "references", "rouge_l", "rouge_1"),
    [
        # Stems agree; 2 of 3 words in order, 3 of 3 in any.
        ("running the dogs", ["the dog runs"], 200 / 3, 100),
        ("a b", ["a b c d", "x"], 200 / 3, 200 / 3),
        ("", ["a"], 0, 0),
        ("a", [], 0, 0),
        # Google's tokenizer knows Latin letters and digits only.
        ("да", ["да"], 0, 0),
    ],
)
def test_rouge(prediction, references, rouge_l, rouge_1):
    assert metrics.rouge_l(prediction, references) == pytest.approx(rouge_l)
    assert metrics.rouge_1(prediction, references) == pytest.approx(rouge_1)


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="rouge_l"):
        metrics.find("rougeL")
