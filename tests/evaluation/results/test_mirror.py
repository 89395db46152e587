"""Results on a bucket: they reach it, and an evaluation goes on from them. A folder stands in for the bucket."""

import dataclasses
import json
import os
import pathlib
import time

import jax
import pytest
from etils.epath import backend, gpath

from iml.evaluate import evaluate
from iml.evaluation import in_training
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.results import mirror
from iml.evaluation.results.results_folder import ResultsFolder, read_predictions
from iml.evaluation.suites import Suite
from iml.models.opt import OPT
from iml.train import train
from iml.training import checkpoints
from tests.data.small_vocabulary import write_vocabulary
from tests.evaluation.models import small_config
from tests.stores import make_store
from tests.training import tiny

HOME = "gs://bucket"
SUITE = Suite(shots=(0,), decoding=Decoding(max_new_tokens=4), split_scheme="pocket")
TASKS = {f"t.{name}": {"test": [(f"say {i}", f"{i}") for i in range(2)]} for name in ("one", "two")}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder whose files lie on `gs://bucket`; there is no other file system behind etils' paths."""
    home = tmp_path / "bucket"
    home.mkdir()

    class Bucket:
        def __getattr__(self, name):
            operation = getattr(backend.os_backend, name)
            return lambda path, *rest, **options: operation(
                os.fspath(path).replace(HOME, str(home)), *rest, **options
            )

    monkeypatch.setattr(gpath.PosixGPath, "_backend", property(lambda path: Bucket()))
    monkeypatch.chdir(tmp_path)
    yield home
    assert not (tmp_path / "gs:").exists()


def names(folder):
    return {path.name for path in folder.iterdir()}


def interrupt_after(monkeypatch, count):
    """Ends an evaluation once so many tasks are complete; gives the tasks that are answered, also later."""
    append, answered = ResultsFolder.append, []

    def interrupting(self, task, predictions):
        append(self, task, predictions)
        answered.append(task)
        if len(answered) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultsFolder, "append", interrupting)
    return answered


def test_an_evaluation_into_a_bucket_goes_on_from_there(tmp_path, bucket, monkeypatch, capsys):
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    config = small_config(vocabulary)
    params = OPT(config).init(jax.random.key(0))
    checkpoints.save_params(tmp_path / "model", config, params, vocabulary.directory)
    make_store(tmp_path, TASKS)

    def run(output, **settings):
        return evaluate(str(tmp_path / "model"), str(tmp_path / "store"), output, SUITE, **settings)

    answered = interrupt_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        run(f"{HOME}/run/results")
    assert {line["task"] for line in read_predictions(f"{HOME}/run/results")} == {"t.one"}
    run(f"{HOME}/run/results")
    assert answered == ["t.one", "t.two"]
    assert f"report: {HOME}/run/results/report.html" in capsys.readouterr().out
    there = bucket / "run" / "results"
    assert names(there) == {
        *("header.json", "results.jsonl", "efficiency.jsonl"),
        *("scores.json", "report.md", "report.html"),
    }
    assert "Evaluation: results" in (there / "report.md").read_text()
    # Beside one that lies there, and by itself, as a local one does.
    scores = run("local", compare=[f"{HOME}/run/results"])
    assert scores["levels"] == json.loads((there / "scores.json").read_text())["levels"]
    assert "problem" not in scores["comparisons"][f"{HOME}/run/results"]


def test_every_checkpoint_of_a_run_into_a_bucket(tmp_path, bucket, capsys):
    write_vocabulary(tmp_path / "run" / "vocabulary")
    config = small_config(write_vocabulary(tmp_path / "vocabulary"))
    make_store(tmp_path, TASKS)
    for step in (1, 2):
        written = checkpoints.Checkpoints(tmp_path / "run", None)
        meta = {"model": config.to_json(), "fingerprints": {}, "stream": {}, "step": step}
        written.save(step, OPT(config).init(jax.random.key(step)), {}, meta)
        written.close()
    for already in (0, 2):
        given = (str(tmp_path / "run"), str(tmp_path / "store"), f"{HOME}/curve", SUITE)
        evaluate(*given, all_checkpoints=True)
        shown = capsys.readouterr().out
        assert shown.count("already evaluated") == already and f"curve: {HOME}/curve/curve.html" in shown
    assert names(bucket / "curve") == {"1", "2", "curve.json", "curve.md", "curve.html"}


@pytest.mark.slow
def test_a_run_on_a_bucket_is_evaluated_there(tmp_path, bucket, monkeypatch):
    tiny.prepare(tmp_path)
    rows = [("the other " * (1 + i % 3), "the inn") for i in range(20)]
    make_store(tmp_path, {name: {"train": rows, "validation": rows[:2]} for name in ("flan.t0", "t5.t1")})
    suite = dataclasses.replace(SUITE, split_scheme=str(tmp_path / "splits_none.json"))
    settings = tiny.config(tmp_path, eval_suite=suite, eval_period=4)
    # Checkpoints cannot be written to a bucket that is a folder: only the results go there.
    begun = in_training.InTraining.__post_init__

    def begin(self):
        self.run_dir = f"{HOME}/run"
        begun(self)

    monkeypatch.setattr(in_training.InTraining, "__post_init__", begin)
    answered = interrupt_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(**settings)
    train(**settings)
    there = bucket / "run" / "evaluation"
    assert len(answered) == 2 + 2 + 2 and names(there) == {"0", "4", "6"}
    assert all({"scores.json", "report.html"} <= names(there / step) for step in names(there))


def test_what_is_written_is_copied_meanwhile_and_what_is_removed_goes(bucket, monkeypatch):
    monkeypatch.setattr(mirror, "PERIOD", 0.02)
    (bucket / "old").mkdir()
    (bucket / "old" / "answers.jsonl").write_text("{}")
    with mirror.mirrored(f"{HOME}/old") as folder:
        local = pathlib.Path(folder)
        assert local.name == "old" and names(local) == {"answers.jsonl"}
        (local / "results.jsonl").write_text("first")
        (local / ".being_written").write_text("half")
        (local / "answers.jsonl").unlink()
        ends = time.monotonic() + 120
        while names(bucket / "old") != {"results.jsonl"} and time.monotonic() < ends:
            time.sleep(0.01)
        assert names(bucket / "old") == {"results.jsonl"}
        (local / "results.jsonl").write_text("second")
    assert (bucket / "old" / "results.jsonl").read_text() == "second" and not local.exists()
