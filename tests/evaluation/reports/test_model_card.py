"""The card of an exported model, from a run's folder, results and contamination findings."""

import dataclasses
import json

import pytest

from iml.errors import InputError
from iml.evaluation.reports import model_card
from iml.models.config import OPTConfig

CONFIG = OPTConfig(vocab_size=64, num_layers=1, embed_dim=8, num_heads=2, max_positions=16)
PLAN = {
    "fingerprint": "abc",
    "epoch_size": 300,
    "benchmarks": {"flan": {"tasks": 2, "draws": 300, "share": 1.0}},
    "counts": {"flan.a": 100, "flan.b": 200},
    "cards": {
        "flan.a": {"benchmark": "flan", "category": "QA", "source": "set_a", "licence": "CC0-1.0"},
        "flan.b": {"benchmark": "flan", "category": "QA", "source": "set|b", "licence": ""},
    },
    "left_out": {"flan.c": "fully held out"},
    "versions": {"jax": "0"},
    "init_from": "opt-125m",
}


def _scores(model_hash: str, mean: float) -> dict:
    cell = {"mean": mean, "low": mean - 1, "high": mean + 1, "tasks": 1, "examples": 5}
    return {
        "header": {"model_hash": model_hash, "suite": {"name": "s", "split": "validation"}},
        "shots": [0, 5],
        "levels": {"fully_held_out": {"0": cell, "5": cell, "average": cell}},
        "categories": {},
        "benchmarks": {},
        "groups": {},
        "tasks": {"flan.c": {}},
        "scorers": {},
        "failures": {},
    }


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run"
    found = {"mine": _scores("mine", 40.0), "other": _scores("other", 20.0), "3": _scores("early", 10.0)}
    for name, scores in found.items():
        (run / "evaluation" / name).mkdir(parents=True)
        (run / "evaluation" / name / "scores.json").write_text(json.dumps(scores))
    (run / "plan.json").write_text(json.dumps(PLAN))
    (run / "config.gin").write_text("STEPS = 5\n")
    return run


def test_a_card_tells_data_scores_overlaps_and_licences(run, tmp_path):
    (tmp_path / "overlaps").mkdir()
    pair = {"train": "flan.a", "eval": "flan.c", "level": "fully_held_out", "share": 0.5}
    found = {
        "settings": {"ngram": 13, "threshold": 0.01},
        "training": {"tasks": 2},
        "evaluation": {"tasks": 1},
        "listed": [pair],
    }
    (tmp_path / "overlaps" / "contamination.json").write_text(json.dumps(found))
    (tmp_path / "overlaps" / "decisions.jsonl").write_text(json.dumps(pair | {"decision": "keep"}) + "\n")
    facts = model_card.gather("tuned", CONFIG, run, 5, contamination=tmp_path / "overlaps")
    text = model_card.render(facts)
    assert "instruction-tuned for 5 updates" in text and "begun from `opt-125m`" in text
    assert "| flan | 2 | 300 | 100.00% |" in text
    assert "| CC0-1.0 | 1 | set\\_a |" in text and "| not stated | 1 | set\\|b |" in text
    assert "| fully held out | 40.0 [39.0, 41.0] |" in text
    assert "1 pairs have a 13-gram in common" in text and "1 `keep`" in text
    assert "STEPS = 5" in text
    assert "20.0 [19.0, 21.0]" in text and "10.0 [9.0, 11.0]" not in text


def test_the_hub_reads_its_metadata(run, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="reads the metadata as the hub does")
    facts = model_card.gather("tuned", CONFIG, run, 5)
    drawn = PLAN["cards"]["flan.a"] | {"source": "glue/mrpc (80% of the validation split is the train split)"}
    plan = facts.plan | {"cards": facts.plan["cards"] | {"flan.d": drawn}}
    path = model_card.write(tmp_path, dataclasses.replace(facts, plan=plan, model_hash="mine"))
    data = hub.ModelCard.load(path).data
    # Only what can be the name of a data set there; the text names all sources.
    assert data.library_name == "transformers" and data.datasets == ["glue/mrpc", "set_a"]
    # Results of other parameters stand in the text, but are not claimed for this model.
    assert {result.metric_value for result in data.eval_results} == {40.0}


def test_results_of_an_endpoint_are_others(run):
    scores = _scores("", 33.0)
    del scores["header"]["model_hash"]
    scores["header"] |= {"engine": "endpoint", "served": "gpt"}
    (run / "evaluation" / "served").mkdir()
    (run / "evaluation" / "served" / "scores.json").write_text(json.dumps(scores))
    for model_hash in ("mine", ""):
        facts = dataclasses.replace(model_card.gather("tuned", CONFIG, run, 5), model_hash=model_hash)
        text = model_card.render(facts)
        head, _, rest = text.partition("### served")
        assert "33.0" not in head and rest.lstrip().startswith("Other parameters") and "33.0" in rest


def test_a_model_of_no_run_has_a_short_card(tmp_path):
    text = model_card.render(model_card.gather("plain", CONFIG, None, None))
    assert "An OPT decoder of" in text and "tuned for" not in text and "## Scores" not in text


def test_what_was_named_must_be_there(run, tmp_path):
    with pytest.raises(InputError, match="no scores here"):
        model_card.gather("tuned", CONFIG, run, 5, evaluations=[str(tmp_path)])
    with pytest.raises(InputError, match="cannot be read"):
        model_card.gather("tuned", CONFIG, run, 5, contamination=tmp_path)
