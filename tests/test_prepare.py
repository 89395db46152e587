"""Preparing: the same store however it is made, only what changed made again, and failures that are told."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("seqio")

from iml import fingerprints, seqio_bridge
from iml import prepare as prepare_lib
from iml.bench import registry
from iml.data.store import ExampleStore
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: A module of tasks: every .txt file is one, each of its lines an example `source|target`.
MODULE = """
import functools, pathlib
from iml.bench.card import TaskCard
from iml.seqio_bridge import PythonSource, add_task

def read(path, split):
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines()):
        source, target = line.split("|")
        yield {"uid": str(number), "source": source, "target": target}

def register(data_dir):
    for path in sorted(pathlib.Path(data_dir).glob("*.txt")):
        card = TaskCard("own." + path.stem, "own", "Question Answering")
        add_task(card, source=PythonSource(functools.partial(read, str(path)), ("train",), (path,)))
"""


@pytest.fixture(autouse=True)
def empty_registries():
    _clear()
    yield
    _clear()


def _clear():
    for name in registry.names():
        seqio_bridge.remove_task(name)
    fingerprints.hash_file.cache_clear()
    fingerprints.hash_reader.cache_clear()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a task module and 20 task files."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.delitem(sys.modules, "own_lines", raising=False)
    (tmp_path / "own_lines.py").write_text(MODULE)
    (tmp_path / "data").mkdir()
    for number in range(20):
        text = "".join(f"{number} + {i} =|{number + i}\n" for i in range(30))
        (tmp_path / "data" / f"t{number:02}.txt").write_text(text)
    return tmp_path


def prepare(own, store="store", processes=1, modules=("own_lines",), **options):
    _clear()
    return prepare_lib.prepare(modules, str(own / "data"), str(own / store), processes=processes, **options)


def times(own):
    return {path: path.stat().st_mtime_ns for path in (own / "store").rglob("*.array_record")}


def test_only_what_changed_is_made_again(own, capsys):
    first = prepare(own)
    assert len(first) == 20 and first["own.t03"].splits["train"].examples == 30
    before = times(own)
    capsys.readouterr()
    assert prepare(own) == first and times(own) == before
    assert "20 of them unchanged" in capsys.readouterr().out

    with (own / "data" / "t03.txt").open("a") as file:
        file.write("new|line\n")
    (own / "data" / "t07.txt").unlink()
    second = prepare(own)
    assert first.keys() - second.keys() == {"own.t07"}
    assert [name for name in second if second[name] != first[name]] == ["own.t03"]
    opened = ExampleStore(own / "store")
    assert opened.tasks == second and not (own / "store" / "own.t07").exists()
    assert opened.read("own.t03", "train", 30).target == "line"
    after = times(own)
    changed = {path.parent.parent.name for path in before.keys() ^ after.keys()}
    assert changed == {"own.t03", "own.t07"} and all(
        after[path] == before[path] for path in before.keys() & after
    )


@pytest.mark.parametrize(
    "damage", [pathlib.Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])]
)
def test_a_file_that_the_store_lost_is_made_again(own, damage):
    first = prepare(own)
    [lost] = (own / "store" / "own.t03").rglob("*.array_record")
    kept = {path: made for path, made in times(own).items() if path != lost}
    damage(lost)
    assert prepare(own) == first
    assert ExampleStore(own / "store").read("own.t03", "train", 29).target == "32"
    assert kept.items() <= times(own).items()


def test_a_definition_that_the_reader_names_counts_as_its_code(own):
    (own / "own_lines.py").write_text(MODULE + '\nDEFINITIONS = "own.json"\n')
    (own / "definitions").mkdir()
    for name in ("own.json", "another.json"):
        (own / "definitions" / name).write_text("{}")
    first = prepare(own)
    (own / "definitions" / "another.json").write_text('{"a": 1}')
    assert prepare(own) == first
    (own / "definitions" / "own.json").write_text('{"a": 1}')
    again = prepare(own)
    assert all(entry.fingerprint != first[name].fingerprint for name, entry in again.items())


def test_what_a_module_calls_its_reader_with_counts_as_its_code(own, monkeypatch):
    reader = MODULE.replace('"source": source', '"source": asked + source').replace(
        "path, split", "asked, path, split"
    )
    (own / "readers_of_others.py").write_text(reader.partition("def register")[0])
    module = MODULE.replace("def read", "from readers_of_others import read as read_lines\n\ndef read")
    module = module.replace("partial(read, ", "partial(read_lines, 'ASKED ', ")
    for asked in ("What is ", "How much makes "):
        monkeypatch.delitem(sys.modules, "own_lines", raising=False)
        (own / "own_lines.py").write_text(module.replace("ASKED ", asked))
        prepare(own)
        assert ExampleStore(own / "store").read("own.t03", "train", 1).source == f"{asked}3 + 1 ="


def test_any_number_of_processes_makes_the_same_store(own):
    assert prepare(own, "two", processes=2) == prepare(own, "one")
    assert ExampleStore(own / "two").fingerprint == ExampleStore(own / "one").fingerprint


def test_a_bad_task_is_left_out_and_told(own, capsys):
    prepare(own)
    (own / "data" / "t05.txt").write_text("no bar in this line\n")
    (own / "data" / "t06.txt").write_text("")
    assert len(prepare(own)) == 18
    opened = ExampleStore(own / "store")
    assert opened.failures.keys() == {"own.t05", "own.t06"}
    assert "ValueError: not enough values to unpack" in opened.failures["own.t05"]
    assert opened.failures["own.t06"] == "task own.t06 has no examples"
    told = capsys.readouterr().out
    line = MODULE.splitlines().index('        source, target = line.split("|")') + 1
    assert "left out own.t05: ValueError" in told and f"(own_lines.py:{line})" in told
    (own / "data" / "t00.txt").unlink()
    with pytest.raises(InputError, match=r"2 tasks failed, own\.t05 for one"):
        prepare(own, strict=True)
    assert ExampleStore(own / "store").tasks == opened.tasks  # the store before stays
    for path in (own / "data").glob("*.txt"):
        path.write_text("bad")
    with pytest.raises(InputError, match="every task failed"):
        prepare(own)


def test_a_file_that_a_reader_does_not_find_is_no_full_disk(own):
    (own / "own_lost.py").write_text(
        MODULE.replace("Path(path).read", "Path(path.replace('t05', 'none')).read")
    )
    assert len(prepare(own, modules=("own_lost",))) == 19
    [(name, reason)] = ExampleStore(own / "store").failures.items()
    assert name == "own.t05" and "none.txt: cannot be read (No such file or directory)" in reason


def test_a_task_that_kills_its_process_is_left_out_and_told(own):
    ending = "    import os\n    if 't05' in str(path): os.kill(os.getpid(), 9)\n    for number"
    (own / "own_killer.py").write_text(MODULE.replace("    for number", ending))
    entries = prepare(own, processes=2, modules=("own_killer",))
    opened = ExampleStore(own / "store")
    assert len(entries) == 19 and opened.failures.keys() == {"own.t05"}
    assert "process was killed" in opened.failures["own.t05"]
    assert opened.read("own.t06", "train", 0).target == "6"


def test_tasks_that_go_from_the_store_are_told_of(own, capsys):
    prepare(own)
    assert "removed" not in capsys.readouterr().out
    prepare(own, tasks=("own.t1*",), dry_run=True)
    told = "remove 10 tasks of the store that are not among those prepared: own.t00, own.t01"
    assert "would " + told in capsys.readouterr().out and len(ExampleStore(own / "store").tasks) == 20
    prepare(own, tasks=("own.t1*",))
    assert told.replace("remove", "removed") in capsys.readouterr().out


def test_a_log_tells_now_and_then_how_far_it_is(own, capsys, monkeypatch):
    monkeypatch.setattr(prepare_lib, "_PERIOD", 0)
    prepare(own)
    assert "7 of 20 tasks" in capsys.readouterr().out


def test_a_family_without_data_is_left_out_and_told(own, capsys):
    modules = ("tasks.super_natural_instructions", "own_lines")
    assert len(prepare(own, modules=modules)) == 20
    assert "left out tasks.super_natural_instructions:" in capsys.readouterr().out
    assert ExampleStore(own / "store").failures.keys() == {"tasks.super_natural_instructions"}
    with pytest.raises(InputError, match="no task files here"):
        prepare(own, modules=modules, strict=True)


def test_what_cannot_be_prepared_at_all(own, tmp_path):
    for module, problem in (
        ("tasks.poket", "there is no module 'tasks.poket'"),
        ("iml.errors", r"iml\.errors has no function register"),
    ):
        with pytest.raises(InputError, match=problem):
            prepare_lib.prepare([module], "", str(tmp_path / "store"))
    with pytest.raises(InputError, match="own_lines registered no task"):
        prepare_lib.prepare(["own_lines"], str(tmp_path / "store"), str(tmp_path / "store"))
    with pytest.raises(InputError, match="none of 20 registered tasks matches flan"):
        prepare(own, tasks=("flan.*",))
    assert not (own / "store").exists()


def test_a_dry_run_writes_nothing(own, capsys):
    assert prepare(own, dry_run=True, tasks=("own.t0*",)) == {}
    assert "would prepare 10 tasks of own" in capsys.readouterr().out
    assert not (own / "store").exists()


def test_a_full_disk_is_told_and_the_store_stays(own, monkeypatch):
    before = prepare(own)

    def write_task(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_lib.store, "write_task", write_task)
    (own / "data" / "t03.txt").write_text("a|b\n")
    with pytest.raises(InputError, match=r"No space left on device.*Is the disk full\?"):
        prepare(own)
    assert ExampleStore(own / "store").tasks == before


def test_a_task_keeps_no_more_training_examples_than_its_cap(own):
    capped = prepare(own, max_examples={"own": 10})
    kept = ExampleStore(own / "store")
    rows = {name: kept.read_many(name, "train", range(10)) for name in capped}
    assert {entry.splits["train"].examples for entry in capped.values()} == {10}
    assert all(int(shown.target) == sum(map(int, shown.source[:-1].split("+"))) for shown in rows["own.t03"])
    assert (
        len({tuple(example.uid for example in shown) for shown in rows.values()}) > 15
    )  # its own choice each
    assert prepare(own, "two", processes=2, max_examples=10) == capped
    assert prepare(own, max_examples=10, seed=1)["own.t03"] != capped["own.t03"]
    assert prepare(own)["own.t03"].splits["train"].examples == 30
    with pytest.raises(InputError, match=r"unknown benchmark 'onw'.*'own'"):
        prepare(own, max_examples={"onw": 10})


def test_a_run_ends_with_the_table_of_the_store(own, capsys):
    own_scheme = own / "own.json"
    own_scheme.write_text('{"name": "mine", "levels_by_task": {"own.t0*": "partially_held_out"}}')
    prepare(own, split_scheme=str(own_scheme))
    assert "prompts" in capsys.readouterr().out
    record = json.loads((own / "store" / "statistics.json").read_text())
    assert (record["families"]["own"]["tasks"], record["families"]["own"]["examples"]) == (20, 600)
    assert record["families"]["own"]["mean"] == 4 and record["families"]["own"]["deviation"] == 0
    assert (record["split_scheme"], record["sets"]["train"]["tasks"]) == ("mine", 10)
    assert "600" in (own / "store" / "statistics.html").read_text()


def test_prompts_are_measured_in_tokens_once(own, monkeypatch):
    vocabulary = ROOT / "tasks" / "pocket" / "vocabulary"
    first = prepare(own, vocabulary_dir=str(vocabulary))
    record = json.loads((own / "store" / "statistics.json").read_text())
    sizes = [
        len(Vocabulary(str(vocabulary)).encode(f"{number} + {i} ="))
        for number in range(20)
        for i in range(30)
    ]
    assert record["unit"].startswith("tokens ")
    assert record["families"]["own"]["mean"] == pytest.approx(sum(sizes) / len(sizes))
    monkeypatch.setattr(Vocabulary, "encode_batch", None)  # neither now nor later is anything encoded again
    assert prepare(own, vocabulary_dir=str(vocabulary)) == first
    assert ExampleStore(own / "store").tasks == first
    words = prepare(own)["own.t03"]
    assert words == first["own.t03"]


def test_the_documented_example_is_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    [entry] = prepare_lib.prepare(["examples.own_task.task"], "examples/own_task", str(tmp_path)).values()
    lines = (ROOT / "examples/own_task/train.tsv").read_text().splitlines()
    assert entry.splits["train"].rows == len(lines)
    example = ExampleStore(tmp_path).read("my_tasks.capitals", "train", 0)
    assert (example.source, example.target) == ("What is the capital of France?", "Paris")


def test_help_explains_and_starts_without_tensorflows_chatter():
    command = [sys.executable, "-m", "iml.prepare", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "task_modules" in done.stdout and not done.stderr
