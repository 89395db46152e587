"""Answers, lists, dialogue states, entities and parses are judged as UnifiedSKG's evaluators judge them."""

import hashlib
import itertools
import json
import pathlib
import re

import pytest
from etils import epath

from iml.evaluation.metrics import METRICS, Answer, measure, score
from iml.evaluation.scores.aggregation import aggregate
from tasks import unified_skg
from tasks.unified_skg import descriptions, tables
from tests.evaluation.predictions import make_card, make_prediction

OFFICIAL = json.loads((pathlib.Path(__file__).parent / "unified_skg_verdicts.json").read_text())


def read_references(real_data, name):
    """The answers of a set, as UnifiedSKG writes them."""
    if name == "compwebq":
        # Of this set no file is at hand; these answers are written as its are.
        return read_references(real_data, "wikitq")
    if name == "mmqa":
        return [text.replace(", ", " | ") for text in read_references(real_data, "wikitq")]
    home = epath.Path(real_data) / "unifiedskg" / name
    if name == "kvret":
        paths = sorted(home.glob("*_public.json"))
        return [record.references[0] for path in paths for record in descriptions.kvret(home, path, {})]
    if name == "hybridqa":
        return [row["answer-text"] for row in json.loads((home / "dev.json").read_text())]
    if name == "wikitq":
        reader, paths = tables.wikitq, sorted((home / "data").glob("*.tsv"))
    else:
        reader, paths = descriptions.multiwoz, [home / "val.json.gz", home / "test.json.gz"]
    return [record.references[0] for path in paths for record in reader(home, path, {})]


def in_float(text):
    return re.sub(r"(?<![\w.])\d+(?![\w.])", lambda found: f"{found[0]}.0", text)


#: By name, what becomes of an answer and of the next one in the file.
RULES = {
    "same": lambda right, other: right,
    "other": lambda right, other: other,
    "turned": lambda right, other: ", ".join(reversed(right.split(", "))),
    "mixed": lambda right, other: ", ".join([*right.split(", ")[:-1], other.split(", ")[0]]),
    "both": lambda right, other: f"{right}, {other}",
    "twice": lambda right, other: f"{right}, {right}",
    "float": lambda right, other: in_float(right),
    "spaced": lambda right, other: " " + right.replace(", ", " ,  ") + " ",
    "upper": lambda right, other: right.upper(),
    "article": lambda right, other: f"The {right}!",
    "part": lambda right, other: " ".join(right.split(" ")[:-1]),
    "unfilled": lambda right, other: f"{right}, hotel stars none, taxi to not mentioned",
    "digits": lambda right, other: right.translate({ord("0") + i: 0x0660 + i for i in range(10)}),
}


def pairs(references):
    """Predictions with what is right: of each third answer every rule, by rule."""
    near = list(itertools.pairwise([*references, references[0]]))
    return {
        name: [(rule(*near[i]), references[i]) for i in range(place % 3, len(near), 3)]
        for place, (name, rule) in enumerate(RULES.items())
    }


def digest(found):
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(OFFICIAL["sets"]))
def test_verdicts_are_those_of_unified_skgs_evaluators(real_data, name):
    told, found = OFFICIAL["sets"][name], pairs(read_references(real_data, name))
    assert digest(found) == told["digest"], "other predictions than those that were judged"
    for metric, by_rule in told["scores"].items():
        for rule, expected in by_rule.items():
            entities = str(real_data / "unifiedskg" / "kvret")
            answers = [Answer(text, [right], databases=entities) for text, right in found[rule]]
            values = METRICS[metric].values(answers)
            if values is None:
                assert score(metric, answers) == pytest.approx(100 * expected, abs=1e-6), rule
            elif isinstance(expected, str):
                verdicts = "".join(str(int(value == 100)) for value in values)
                wrong = [pair for pair, a, b in zip(found[rule], verdicts, expected, strict=True) if a != b]
                assert wrong == [], (metric, rule)
            else:
                assert sum(values) == pytest.approx(100 * expected, abs=1e-6), (metric, rule)


def test_scores_of_entities_need_their_list_only_where_answers_are_judged(real_data):
    found = pairs(read_references(real_data, "kvret"))["mixed"]
    answers = [
        Answer(text, [right], databases=str(real_data / "unifiedskg" / "kvret")) for text, right in found
    ]
    rows = measure(("rouge_l", "entity_f1"), answers).statistics["entity_f1"]
    lines = [
        make_prediction("t", 0, number, 0.0, statistics={"entity_f1": row}) for number, row in enumerate(rows)
    ]
    card = make_card("t", metrics=("rouge_l", "entity_f1"))
    [task] = aggregate(lines, {"t": card}, {"t": "supervised"}, resamples=5)["tasks"].values()
    assert task["metrics"]["entity_f1"]["0"] == pytest.approx(score("entity_f1", answers))
    bare = [Answer(text, [right]) for text, right in found]
    assert "kvret_entities.json" in measure(("rouge_l", "entity_f1"), bare).missing["entity_f1"]


def test_parses_match_where_unified_skgs_evaluator_of_mtop_says_so():
    """Brackets make a parse what it is: `exact_match`, which drops them, would not do."""
    parses = OFFICIAL["parses"]
    answers = [Answer(found, [right]) for found, right, *_ in parses]
    assert METRICS["query_match"].values(answers) == [100 * exact for *_, exact, _ in parses]
    assert METRICS["frame_match"].values(answers) == [100 * template for *_, template in parses]
    assert METRICS["exact_match"].values(answers) != METRICS["query_match"].values(answers)
    for name in ("mtop", "grailqa", "webqsp"):
        assert unified_skg.definitions()[name]["metrics"][0] == "query_match"
