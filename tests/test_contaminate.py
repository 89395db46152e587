"""iml.contaminate from a store to its report, and iml.prepare honouring what was decided."""

import json
import re
import subprocess
import sys

import pytest

from iml import prepare as prepare_lib
from iml import seqio_bridge
from iml.bench import contamination_decisions, registry
from iml.contaminate import contaminate
from iml.data.store import ExampleStore
from iml.errors import InputError
from tests.stores import make_store

PASSAGE = (
    "It was the best of times and the worst of times, the age of wisdom <script>alert(1)</script> and of"
)
SCHEME = {"name": "mine", "levels_by_task": {"own.held": "partially_held_out"}}


def filler(task, number):
    return " ".join(f"{task}{number}w{i}" for i in range(20))


def own_tasks():
    """By task, by split, (source, target): `a` holds passages that `held` and its own test split ask about."""
    a = {
        "train": [(filler("a", i), "t") for i in range(50)] + [(f"Read: {PASSAGE} foolishness", "one")],
        "test": [(PASSAGE.upper(), "x"), *((filler("at", i), "y") for i in range(9))],
    }
    b = {"train": [(filler("b", i), "t") for i in range(20)]}
    held = {"validation": [(PASSAGE, "z"), *((filler("h", i), "y") for i in range(3))]}
    return {"own.a": a, "own.b": b, "own.held": held}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "scheme.json").write_text(json.dumps(SCHEME))
    return make_store(tmp_path, own_tasks())


def run(tmp_path, output="out", **options):
    options = {"split_scheme": str(tmp_path / "scheme.json"), "processes": 1, **options}
    return contaminate(str(tmp_path / "store"), str(tmp_path / output), **options)


def test_overlapping_pairs_are_found_and_shown(store, tmp_path, capsys):
    result = run(tmp_path)
    [held, own] = result["listed"]
    assert (held["train"], held["eval"], held["level"]) == ("own.a", "own.held", "partially_held_out")
    assert (held["examples"], held["of"], held["share"], held["train_examples"]) == (1, 4, 0.25, 1)
    assert (own["train"], own["eval"], own["share"]) == ("own.a", "own.a", 0.1)
    assert json.loads((tmp_path / "out" / "contamination.json").read_text()) == result
    [excerpt] = held["excerpts"]
    assert excerpt["words"] == 21 and excerpt["train"]["text"] == ["Read: ", PASSAGE, " foolishness one"]
    assert (excerpt["eval"]["uid"], excerpt["train"]["uid"]) == ("0", "50")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "25.0%" in page
    assert not re.search(r"""(src|href)\s*=|url\(""", page)
    assert "2 pairs over 1%" in capsys.readouterr().out
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"contamination.json", "decisions.examples.jsonl", "decisions.jsonl", "report.html"}


def test_any_number_of_processes_finds_the_same(store, tmp_path):
    alone = run(tmp_path, "one")
    parallel = run(tmp_path, "two", processes=2)
    for name in ("listed", "below", "shared_instructions", "evaluation", "training"):
        assert parallel[name] == alone[name]


def test_settings(store, tmp_path, capsys):
    assert [pair["eval"] for pair in run(tmp_path, threshold=0.1)["listed"]] == ["own.held"]
    below = run(tmp_path, threshold=0.3)["below"]
    assert [pair["share"] for pair in below] == [0.25, 0.1]
    assert [pair["eval"] for pair in run(tmp_path, levels=["supervised"])["listed"]] == ["own.a"]
    assert not run(tmp_path, ngram=50)["listed"]
    assert run(tmp_path, "dry", dry_run=True) == {} and not (tmp_path / "dry").exists()
    with pytest.raises(InputError, match="no task of the store is evaluated"):
        run(tmp_path, levels=["fully_held_out"])
    with pytest.raises(InputError, match="there is no example store here"):
        contaminate(str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_decisions_are_never_overwritten(store, tmp_path):
    run(tmp_path, threshold=0.2)
    path = tmp_path / "out" / "decisions.jsonl"
    [line] = path.read_text().splitlines()
    assert json.loads(line)["decision"] == "keep" and json.loads(line)["reason"] == ""
    edited = line.replace('"keep"', '"drop_eval"').replace('"reason": ""', '"reason":   "read it"')
    path.write_text(edited)  # without a line break at the end
    run(tmp_path)
    first, second = path.read_text().splitlines()
    assert first == edited and json.loads(second)["eval"] == "own.a"
    run(tmp_path)
    assert path.read_text().splitlines() == [first, second]
    assert "drop_eval (read it)" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"train": "a"}'], r"decisions.jsonl:1, field 'eval': is missing"),
        (
            ["", '{"train": "a", "eval": "b", "decision": "drop"}'],
            r":2, field 'decision'.*One of keep, drop_train",
        ),
        (['{"train": "a", "eval": "b", "share": "1"}'], r":1, field 'share': must be a number"),
        (['{"train": "a", "eval": "b", "verdict": "keep"}'], r":1, field 'verdict': unknown field"),
        (["[]"], ":1: must be a JSON object"),
        (['{"train": '], ":1: not JSON"),
        (['{"train": "a", "eval": "b"}'] * 2, ":2: a and b stand in an earlier line too"),
    ],
)
def test_a_wrong_decision_file_is_told_before_the_work(store, tmp_path, lines, problem):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "decisions.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=problem):
        run(tmp_path)
    assert not (tmp_path / "out" / "report.html").exists()


# ------------------------------------------------------------------------- prepare honours decisions

MODULE = """
import functools, json, pathlib
from iml.bench.card import TaskCard
from iml.seqio_bridge import PythonSource, add_task

def read(path, split):
    for number, (source, target) in enumerate(json.loads(pathlib.Path(path).read_text())[split]):
        yield {"uid": str(number), "source": source, "target": target}

def register(data_dir):
    for path in sorted(pathlib.Path(data_dir).glob("*.json")):
        card = TaskCard("own." + path.stem, "own", "Question Answering")
        splits = tuple(json.loads(path.read_text()))
        add_task(card, source=PythonSource(functools.partial(read, str(path)), splits, (path,)))
"""


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """A function that prepares own_tasks(), whose files it writes, with some decisions."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_json", raising=False)
    (tmp_path / "own_json.py").write_text(MODULE)
    (tmp_path / "data").mkdir()
    (tmp_path / "scheme.json").write_text(json.dumps(SCHEME))
    for name, task in own_tasks().items():
        (tmp_path / "data" / f"{name.removeprefix('own.')}.json").write_text(json.dumps(task))

    def clear():
        for name in registry.names():
            seqio_bridge.remove_task(name)

    def prepare(decisions=None):
        clear()
        path = tmp_path / "out" / "decisions.jsonl"
        if decisions is not None:
            records = [json.loads(line) for line in path.read_text().splitlines()]
            for record in records:
                record["decision"] = decisions.get(record["eval"], "keep")
                record["reason"] = "seen"
            path.write_text("\n".join(map(json.dumps, records)))
        options = {} if decisions is None else {"decisions": str(path)}
        prepare_lib.prepare(
            ["own_json"], str(tmp_path / "data"), str(tmp_path / "store"), processes=1, **options
        )
        return ExampleStore(tmp_path / "store")

    yield prepare
    clear()


def test_prepare_leaves_out_what_was_decided(prepare, tmp_path, capsys):
    whole = prepare()
    run(tmp_path)
    assert prepare({}).tasks == whole.tasks

    opened = prepare({"own.held": "drop_train"})
    assert set(opened.tasks) == {"own.b", "own.held"}
    assert opened.failures == {"own.a": "overlaps with own.held: seen"}
    assert "left out own.a: overlaps with own.held: seen" in capsys.readouterr().out

    assert set(prepare({"own.held": "drop_eval"}).tasks) == {"own.a", "own.b"}

    opened = prepare({"own.a": "drop_eval"})  # It is supervised: what is trained on stays.
    assert set(opened.tasks["own.a"].splits) == {"train"} and set(opened.tasks) == set(whole.tasks)

    opened = prepare({"own.held": "drop_train_examples"})
    assert opened.tasks["own.a"].splits["train"].rows == 50
    assert opened.tasks["own.a"].splits["test"] == whole.tasks["own.a"].splits["test"]
    # The overlap is gone; the uids stay known, so that preparing again leaves them out again.
    assert not run(tmp_path)["listed"]
    assert prepare({"own.held": "drop_train_examples"}).tasks == opened.tasks
    assert prepare({}).tasks == whole.tasks


def test_decisions_that_cannot_be_honoured(prepare, tmp_path):
    path = tmp_path / "out" / "decisions.jsonl"
    prepare()
    with pytest.raises(InputError, match=r"cannot be read.*python -m iml\.contaminate writes it"):
        contamination_decisions.leave_out(path)
    run(tmp_path)
    (tmp_path / "out" / "decisions.examples.jsonl").write_text("")
    with pytest.raises(InputError, match=r"does not say which examples of own\.a overlap with own\.held"):
        prepare({"own.held": "drop_train_examples"})


def test_the_command_line(store, tmp_path):
    bindings = {
        "store_dir": store.path,
        "output_dir": tmp_path / "out",
        "split_scheme": tmp_path / "scheme.json",
    }
    command = [sys.executable, "-m", "iml.contaminate", "--gin.contaminate.processes=2"]
    command += [f"--gin.contaminate.{name}={value}" for name, value in bindings.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 pairs over 1%" in done.stdout and not done.stderr
