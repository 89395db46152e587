"""Evaluation inside a training run: what it finds, what it leaves, and how it is gone on with."""

import json
import signal

import pytest

from iml.errors import InputError
from iml.evaluate import evaluate
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.results.results_folder import ResultsFolder
from iml.evaluation.suites import Suite
from iml.train import train
from iml.training.loop import REQUEUE
from iml.training.tunings import LoRA
from tests.stores import make_store
from tests.training import tiny

CHOICE = {"source": "the inn or the other?", "target": "inn", "candidates": ["inn", "other"]}


@pytest.fixture
def folder(tmp_path):
    tiny.prepare(tmp_path)
    rows = [("the other " * (1 + i % 3), "the inn") for i in range(20)]
    tasks = {
        "flan.t0": {"train": rows, "validation": rows[:2]},
        "t5.t1": {"card": {"metrics": ["accuracy"]}, "train": rows, "validation": [CHOICE] * 3},
    }
    make_store(tmp_path, tasks)
    return tmp_path


def config(folder, **changes):
    suite = Suite(
        tasks=("*", "raft.*"),
        shots=(0,),
        decoding=Decoding(4),
        split_scheme=str(folder / "splits_none.json"),
        scorers=("sum",),
    )
    return tiny.config(folder, eval_suite=suite, eval_period=4, **changes)


def results(path):
    lines = map(json.loads, (path / "results.jsonl").read_text().splitlines())
    kept = ("task", "row", "prediction", "scores", "metrics")
    return sorted([[line[name] for name in kept] for line in lines], key=str)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="full"),
        pytest.param(
            {"tuning": LoRA(4, base="nf4"), "model": {"embed_dim": 64, "ffn_dim": 128}},
            id="qlora",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_results_are_those_of_the_checkpoints(folder, changes, capsys):
    settings = config(folder, **changes)
    train(**settings)
    shown = capsys.readouterr().out
    assert shown.index("missing: raft.*: not in the store") < shown.index("evaluation of step 0")
    found = sorted(path.name for path in (folder / "run" / "evaluation").iterdir())
    assert found == ["0", "4", "6"] and tiny.steps(folder / "run") == (0, 4, 6)
    for step in (4, 6):
        there = folder / "run" / "evaluation" / str(step)
        assert (there / "report.html").exists() and (there / "scores.json").exists()
        evaluate(
            str(folder / "run" / "checkpoints" / str(step)),
            settings["store_dir"],
            str(folder / "again"),
            settings["eval_suite"],
        )
        for one, other in zip(results(there), results(folder / "again"), strict=True):
            assert one[:3] == other[:3] and one[4] == other[4]
            for scorer, values in one[3].items():
                assert values == pytest.approx(other[3][scorer], abs=1e-3)


def test_an_evaluation_that_was_interrupted_is_gone_on_with(folder, monkeypatch):
    append, asked = ResultsFolder.append, []

    def fail_at_step_4(self, task, predictions):
        asked.append(task)
        if len(asked) == 4:
            raise KeyboardInterrupt
        append(self, task, predictions)

    monkeypatch.setattr(ResultsFolder, "append", fail_at_step_4)
    with pytest.raises(KeyboardInterrupt):
        train(**config(folder))
    assert tiny.steps(folder / "run") == (0, 4)
    train(**config(folder))
    # Step 0's two tasks and one of step 4's were done; the other and step 6's two were asked after it.
    assert len(asked) == 4 + 1 + 2
    train(**config(folder, run="whole"))
    assert tiny.digest(folder / "run") == tiny.digest(folder / "whole")


@pytest.mark.slow
def test_sigterm_ends_an_evaluation_at_once_and_another_start_goes_on_with_it(folder, monkeypatch):
    note, noted = ResultsFolder.note, []

    def note_and_be_asked_to_end(self, key, answer):
        note(self, key, answer)
        noted.append((str(self._folder), key))
        if len(noted) in terms:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ResultsFolder, "note", note_and_be_asked_to_end)
    each = 5  # Answers of an evaluation: of steps 0, 4 and 6.
    terms = (each + 2, 2 * each + 1, 2 * each + 3)
    for saved in ((0, 4), (0, 4, 6), (0, 4, 6)):
        with pytest.raises(SystemExit) as ended:
            train(**config(folder))
        assert ended.value.code == REQUEUE and tiny.steps(folder / "run") == saved
        assert len(noted) == terms[0]
        terms = terms[1:]
    assert train(**config(folder)) == {}
    assert len(noted) == len(set(noted)) == 3 * each  # No question was asked twice.
    assert (folder / "run" / "evaluation" / "6" / "report.html").exists()
    train(**config(folder, run="whole"))
    assert tiny.digest(folder / "run") == tiny.digest(folder / "whole")


def test_period_and_suite_go_together(folder):
    for changes in ({"eval_suite": None}, {"eval_period": None}, {"eval_period": 0}):
        with pytest.raises(InputError, match="eval_"):
            train(**config(folder) | changes)
