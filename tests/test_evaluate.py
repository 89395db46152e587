"""The entry point on a small store and a small random model: results, failures, resuming, imports."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import pytest

from iml.data.store import task_folder
from iml.errors import InputError
from iml.evaluate import evaluate
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.suites import Suite
from iml.models.opt import OPT
from iml.training import checkpoints
from tests.data.small_vocabulary import write_vocabulary
from tests.evaluation.models import small_config
from tests.stores import make_store

SUITE = Suite(
    shots=(0, 1), max_prompts_per_task=3, decoding=Decoding(max_new_tokens=4), split_scheme="pocket"
)


def classified(n):
    return [
        {"source": f"is the {i} even?", "target": ["yes", "no"][i % 2], "candidates": ["yes", "no"]}
        for i in range(n)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder with `store` and `model`."""
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    config = small_config(vocabulary)
    params = OPT(config).init(jax.random.key(0))
    checkpoints.save_params(tmp_path / "model", config, params, vocabulary.directory)
    make_store(
        tmp_path,
        {
            "t.even": {
                "card": {"metrics": ["accuracy"]},
                "train": classified(4),
                "validation": classified(5),
            },
            "t.copy": {"test": [(f"say {i}", f"{i}") for i in range(2)]},
            "t.train_only": {"train": [("a", "b")]},
        },
    )
    return tmp_path


def run(folder, output="out", suite=SUITE, **settings):
    return evaluate(
        str(folder / "model"), str(folder / "store"), str(folder / output), suite, batch_size=4, **settings
    )


def lines(folder, output="out"):
    return [json.loads(line) for line in (folder / output / "results.jsonl").read_text().splitlines()]


def test_every_request_leaves_a_prediction_with_its_provenance(folder):
    run(folder)
    predictions = lines(folder)
    counts = {}
    for line in predictions:
        counts[line["task"], line["shots"]] = counts.get((line["task"], line["shots"]), 0) + 1
    assert counts == {("t.copy", 0): 2, ("t.copy", 1): 2, ("t.even", 0): 3, ("t.even", 1): 3}
    ranked = next(line for line in predictions if line["task"] == "t.even" and line["shots"] == 1)
    assert ranked["kind"] == "rank" and ranked["split"] == "validation"
    assert len(ranked["demonstrations"]) == 1
    assert set(ranked["scores"]) == {
        name + end for name in ("sum", "mean", "char", "unconditional") for end in ("", "_eos")
    }
    assert ranked["prediction"] == ranked["candidates"][ranked["picks"]["sum_eos"]]
    assert ranked["metrics"]["accuracy"] == 100.0 * (ranked["prediction"] in ranked["references"])
    generated = next(line for line in predictions if line["task"] == "t.copy")
    assert generated["kind"] == "generate" and generated["split"] == "test"
    assert 0 <= generated["metrics"]["rouge_l"] <= 100
    header = json.loads((folder / "out" / "header.json").read_text())
    assert header["bos"] is False and len(header["model_hash"]) == 16


def test_a_killed_run_goes_on_and_ends_with_the_same_predictions(folder):
    run(folder)
    whole = (folder / "out" / "results.jsonl").read_text()
    # As if killed while writing the second task: its last line is torn.
    (folder / "out" / "results.jsonl").write_text(whole[:-40])
    run(folder)
    assert (folder / "out" / "results.jsonl").read_text() == whole
    run(folder, bos=True)
    assert (folder / "out" / "results.jsonl").read_text() != whole


def test_a_damaged_task_is_left_out_and_named(folder, capsys):
    from iml.data.store import ExampleStore

    entry = ExampleStore(folder / "store").tasks["t.copy"]
    file = task_folder(folder / "store", "t.copy", entry.fingerprint) / "test.array_record"
    file.write_bytes(b"\0" * 100)
    run(folder)
    assert {line["task"] for line in lines(folder)} == {"t.even"}
    scores = json.loads((folder / "out" / "scores.json").read_text())
    assert list(scores["failures"]) == ["t.copy"]
    assert "left out: t.copy" in capsys.readouterr().out


def test_a_metric_that_is_none_is_told_before_anything_is_asked(tmp_path, folder, capsys):
    row = {"source": "the cat", "target": "inn"}
    misspelled = {"t.typo": {"card": {"metrics": ["rouge_L"]}, "validation": [row]}}
    make_store(tmp_path / "other", {"t.copy": {"test": [("say 1", "1")]}} | misspelled)
    scores = evaluate(str(folder / "model"), str(tmp_path / "other" / "store"), str(tmp_path / "out"), SUITE)
    told = capsys.readouterr().out
    assert told.startswith("missing: a metric of t.typo: field 'TaskCard.metrics': no metric 'rouge_L'")
    assert "Did you mean rouge_l?" in scores["failures"]["t.typo"] and scores["tasks"].keys() == {"t.copy"}
    assert scores["efficiency"]["kinds"]["generate"]["requests"] == len(SUITE.shots)


def test_a_dry_run_writes_nothing(folder, capsys):
    run(folder, dry_run=True)
    assert not (folder / "out").exists()
    assert "t.even" in capsys.readouterr().out


def test_a_suite_that_fits_no_task_is_refused(folder):
    with pytest.raises(InputError, match="none of the store"):
        run(folder, suite=Suite(tasks=("none.*",), split_scheme="pocket"))


def test_the_process_loads_neither_tensorflow_nor_torch(folder):
    program = (
        "import sys; from iml import configuration; from iml.data.prompts import PromptFormat\n"
        "from iml.evaluate import *\n"
        "known = (Suite, Decoding, PromptFormat, MeshConfig, PartitionRules)\n"
        "configuration.run(evaluate, doc='', configurables=known)\n"
        "found = {'tensorflow', 'seqio', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {found}' if found else 0)"
    )
    arguments = [
        "--gin_file=evals/quick.gin",
        f"--gin.MODEL={folder / 'model'}",
        f"--gin.STORE_DIR={folder / 'store'}",
        f"--gin.OUTPUT_DIR={folder / 'out'}",
        "--gin.Decoding.max_new_tokens=4",
        "--gin.Suite.split_scheme=pocket",
    ]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "out" / "scores.json").exists()


def test_an_earlier_evaluation_is_set_beside_this_one(folder):
    first = run(folder, "first")
    scores = run(folder, "second", bos=True, compare=[str(folder / "first")])
    assert json.loads((folder / "second" / "scores.json").read_text()) == json.loads(json.dumps(scores))
    level = {result["levels"]["supervised"]["average"]["mean"] for result in (first, scores)}
    compared = scores["comparisons"][str(folder / "first")]
    old, new = (result["levels"]["supervised"]["average"]["mean"] for result in (first, scores))
    assert compared["levels"]["supervised"]["average"]["difference"] == pytest.approx(new - old)
    assert compared["left_out"] == [0, 0] and 0 < compared["levels"]["supervised"]["average"]["p"] <= 1
    spent = scores["efficiency"]
    assert set(spent["phases"]) == {"load", "answer", "score"} and spent["compile"]["programs"] > 0
    assert sum(kind["requests"] for kind in spent["kinds"].values()) == compared["prompts"]
    page = (folder / "second" / "report.html").read_text()
    assert all(f"{mean:.1f}" in page for mean in level)
    with pytest.raises(InputError, match="no scores here"):
        run(folder, "third", compare=[str(folder / "none")])


def test_every_checkpoint_of_a_run_is_evaluated_once_and_one_is_picked(folder, capsys):
    vocabulary = write_vocabulary(folder / "run" / "vocabulary")
    config = small_config(vocabulary)
    run_dir, meta = folder / "run", {"model": config.to_json(), "fingerprints": {}, "stream": {}}
    for step in (10, 20):
        written = checkpoints.Checkpoints(run_dir, None)
        params = OPT(config).init(jax.random.key(step))
        written.save(step, params, {}, meta | {"step": step})
        written.close()

    def go():
        return evaluate(
            str(run_dir),
            str(folder / "store"),
            str(folder / "curve"),
            SUITE,
            batch_size=4,
            all_checkpoints=True,
        )

    curve = go()
    assert [point["step"] for point in curve["points"]] == [10, 20]
    means = {
        step: json.loads((folder / "curve" / str(step) / "scores.json").read_text())["levels"]
        for step in (10, 20)
    }
    # What is compiled serves every checkpoint, but for the cast of the parameters that are read.
    scores = [json.loads((folder / "curve" / str(step) / "scores.json").read_text()) for step in (10, 20)]
    first, second = (found["efficiency"]["compile"]["programs"] for found in scores)
    assert first > 5 and second <= 1
    for point in curve["points"]:
        assert point["levels"]["supervised"]["0"]["mean"] == means[point["step"]]["supervised"]["0"]["mean"]
    assert curve == json.loads((folder / "curve" / "curve.json").read_text())
    assert (folder / "curve" / "20" / "report.html").exists()
    capsys.readouterr()
    assert go() == curve
    assert capsys.readouterr().out.count("already evaluated") == 2
    with pytest.raises(InputError, match="needs the folder of a run"):
        evaluate(str(folder / "model"), str(folder / "store"), str(folder / "x"), SUITE, all_checkpoints=True)
