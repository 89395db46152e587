"""The example store gives back what was written, and says what is wrong with one that is damaged."""

import concurrent.futures
import errno
import json
import pathlib
import pickle

import pytest

from iml.bench.card import Example, TaskCard
from iml.data import store
from iml.errors import InputError
from tests.stores import make_store, to_examples

AWKWARD = Example(
    uid="ü/1",
    source="a\r\nb\x00\u2028 \ud800",
    target=" 😀 ",
    references=(" 😀 ", "", "other"),
    candidates=("x", "y"),
    instruction="Do it.",
    template="t1",
    rationale="Because.",
)
ROWS = [AWKWARD, *to_examples((f"question {i}", f"answer {i}") for i in range(200))]
CARD = TaskCard("own.one", "own", "Other", metrics=("accuracy", "rouge_l"), languages=("English", "Hindi"))


@pytest.fixture
def opened(tmp_path):
    return make_store(
        tmp_path, {"own.one": {"train": ROWS, "test": ROWS[:3]}, "own.two": {"train": ROWS[1:9]}}
    )


def record_file(opened, task="own.one", split="train"):
    return store.task_folder(opened.path, task, opened.tasks[task].fingerprint) / f"{split}.array_record"


def test_what_is_written_is_read(tmp_path):
    entry = store.write_task(tmp_path, CARD, {"train": iter(ROWS), "test": []}, "f" * 32)
    store.write_index(tmp_path, {CARD.name: entry}, {"own.bad": "line 3: broken"})
    opened = store.ExampleStore(tmp_path)
    assert opened.tasks == {CARD.name: entry} and opened.failures == {"own.bad": "line 3: broken"}
    info = entry.splits["train"]
    assert entry.card == CARD and list(entry.splits) == ["train"]
    assert (info.rows, info.examples, info.templates) == (201, 201, ("t1",))
    assert opened.read_many(CARD.name, "train", range(201)) == ROWS
    assert opened.read_many(CARD.name, "train", [7, 0, 7]) == [ROWS[7], AWKWARD, ROWS[7]]
    assert opened.read_many(CARD.name, "train", []) == []
    for row in (-1, 201):
        with pytest.raises(IndexError, match=f"row {row} of own.one/train, which has 201"):
            opened.read(CARD.name, "train", row)
    with pytest.raises(KeyError):
        opened.read(CARD.name, "test", 0)


def test_renderings_of_an_example_are_rows_but_not_examples(tmp_path):
    rows = [Example(str(i), f"{t} {i}", "x", template=t) for i in range(5) for t in ("b", "a", "c")]
    entry = store.write_task(tmp_path, CARD, {"train": rows}, "0" * 32)
    info = entry.splits["train"]
    assert (info.rows, info.examples, info.templates) == (15, 5, ("a", "b", "c"))


def test_the_fingerprint_follows_the_content(tmp_path):
    tasks = {"own.one": {"train": ROWS[:3]}, "own.two": {"train": ROWS[3:5]}}
    first = make_store(tmp_path / "a", tasks)
    assert make_store(tmp_path / "b", dict(reversed(tasks.items()))).fingerprint == first.fingerprint
    tasks["own.two"] = {"train": ROWS[3:6]}
    assert make_store(tmp_path / "c", tasks).fingerprint != first.fingerprint


def test_a_store_pickles_and_is_shared_by_threads(tmp_path):
    opened = make_store(
        tmp_path, {f"own.{i}": {"train": [(f"{i} {j}", "x") for j in range(20)]} for i in range(6)}
    )
    few = store.ExampleStore(opened.path, max_open=2)  # readers are evicted while others read
    copy = pickle.loads(pickle.dumps(few))
    assert copy.tasks == opened.tasks and copy.fingerprint == opened.fingerprint

    def read(number):
        task, row = number % 6, number * 7 % 20
        return copy.read(f"own.{task}", "train", row).source == f"{task} {row}"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(600)))


def test_no_store_and_a_damaged_index_are_told(opened, tmp_path):
    index = opened.path / store.INDEX
    whole = index.read_text()
    record = json.loads(whole)
    del record["tasks"]["own.two"]["splits"]["train"]["rows"]
    for text in (whole[:-40], "", "[]", "null", "{}", json.dumps(record), '{"format": 1, "tasks": []}'):
        index.write_text(text)
        with pytest.raises(InputError, match=r"damaged.*python -m iml\.prepare") as caught:
            store.ExampleStore(opened.path)
        assert caught.value.path == str(index)
    index.write_text(whole.replace('"format":1', '"format":9'))
    with pytest.raises(InputError, match=r"format 9 .* where 1 is read"):
        store.ExampleStore(opened.path)
    index.unlink()
    for path in (opened.path, tmp_path / "nowhere", index.with_name("own.one")):
        with pytest.raises(InputError, match=r"no example store here.*python -m iml\.prepare") as caught:
            store.ExampleStore(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "overwritten", "of another task"])
def test_a_damaged_record_file_is_told_and_the_others_are_read(opened, damage):
    file = record_file(opened)
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(data) // 2
        file.write_bytes(
            {
                "empty": b"",
                "cut": data[:middle],
                "overwritten": data[: middle - 2000] + bytes(4000) + data[middle + 2000 :],
                "of another task": record_file(opened, "own.two").read_bytes(),
            }[damage]
        )
    fresh = store.ExampleStore(opened.path)
    with pytest.raises(InputError, match=r"damaged.*python -m iml\.prepare") as caught:
        fresh.read_many("own.one", "train", range(201))
    assert caught.value.path == str(file)
    assert fresh.read("own.two", "train", 0) == ROWS[1]


def test_what_must_not_be_written(tmp_path):
    twice = [ROWS[1], ROWS[2], ROWS[1]]
    with pytest.raises(InputError, match="two examples of a split have the uid '0'"):
        store.write_task(tmp_path, CARD, {"train": twice}, "0" * 32)
    with pytest.raises(InputError, match=r"task own\.one has no examples"):
        store.write_task(tmp_path, CARD, {"train": [], "test": iter(())}, "0" * 32)
    for name in ("../own.one", "own/one", "", "a b"):
        with pytest.raises(InputError, match="cannot be a task's or a split's name"):
            store.write_task(tmp_path, TaskCard(name, "own", "Other"), {"train": ROWS}, "0" * 32)
    assert not any(tmp_path.iterdir())


def files_of(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("moment", ["record", "close", "card"])
def test_a_full_disk_leaves_the_store_as_it_was(opened, monkeypatch, moment):
    before, card = files_of(opened.path), opened.tasks["own.one"].card
    full = OSError(errno.ENOSPC, "No space left on device")

    class FullWriter(store.ArrayRecordWriter):
        def write(self, record):
            if moment == "record":
                raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")
            super().write(record)

        def close(self):
            super().close()
            if moment == "close":
                raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    def write_text(*args, **kwargs):
        raise full

    monkeypatch.setattr(store, "ArrayRecordWriter", FullWriter)
    if moment == "card":
        monkeypatch.setattr(pathlib.Path, "write_text", write_text)
    for name in (card.name, "own.new"):
        with pytest.raises(OSError, match="No space left on device"):
            store.write_task(opened.path, TaskCard(name, "own", "Other"), {"train": ROWS[:2]}, "9" * 32)
    assert files_of(opened.path) == before and not (opened.path / "own.new").exists()
    assert store.ExampleStore(opened.path).read("own.one", "train", 0) == AWKWARD


def test_a_reader_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield ROWS[1]
        raise InputError("not JSON", path="x.json", line=3)

    with pytest.raises(InputError, match=r"x\.json:3"):
        store.write_task(tmp_path, CARD, {"train": failing()}, "0" * 32)
    assert not any(tmp_path.iterdir())


def test_the_index_is_replaced_whole_or_not_at_all(opened, monkeypatch):
    before = files_of(opened.path)

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", fsync)
        with pytest.raises(OSError, match="No space"):
            store.write_index(opened.path, {"own.two": opened.tasks["own.two"]}, {})
    assert files_of(opened.path) == before

    # An open store goes on reading what its index named, until the new index drops it.
    entry = store.write_task(opened.path, opened.tasks["own.one"].card, {"train": ROWS[5:8]}, "9" * 32)
    assert opened.read("own.one", "train", 0) == AWKWARD
    (opened.path / "notes").mkdir()
    (opened.path / "notes" / "mine.txt").write_text("not the store's")
    store.write_index(opened.path, {"own.one": entry}, {})
    after = store.ExampleStore(opened.path)
    assert list(after.tasks) == ["own.one"] and after.read_many("own.one", "train", range(3)) == ROWS[5:8]
    assert {path.name for path in opened.path.iterdir()} == {"index.json", "notes", "own.one"}
    assert len(list((opened.path / "own.one").iterdir())) == 1


def test_a_finished_task_is_found_again_by_its_fingerprint(tmp_path):
    entry = store.write_task(tmp_path, CARD, {"train": ROWS}, "a" * 32)
    assert store.find_task(tmp_path, CARD.name, "a" * 32) == entry
    assert store.find_task(tmp_path, CARD.name, "b" * 32) is None
    (store.task_folder(tmp_path, CARD.name, "a" * 32) / store.CARD).write_text("{")
    assert store.find_task(tmp_path, CARD.name, "a" * 32) is None
