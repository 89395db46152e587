"""Super-NaturalInstructions: every genuine file is read whole, and a bad one is told by file, line and field."""

import csv
import functools
import json
import pathlib

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example
from iml.errors import InputError
from tasks import super_natural_instructions as super_ni

PREFIX = "super_natural_instructions."
INSTANCES = [{"id": f"t-{i}", "input": f"in {i}", "output": [f"out {i}", "  ", "also"]} for i in range(250)]
RECORD = {"Categories": ["Question Answering"], "Definition": [" Answer it. "], "Instances": INSTANCES}
CUT = json.dumps(RECORD, indent=1).encode()[:495]


@pytest.fixture(autouse=True)
def empty_registries():
    _clear()
    yield
    _clear()


def _clear():
    for name in registry.names():
        seqio_bridge.remove_task(name)
    super_ni._load.cache_clear()


def read(name):
    """A registered task's splits as examples."""
    splits = seqio_bridge.describe_source(name)[0]
    return {
        split: [Example.from_json(fields) for fields in seqio_bridge.read_fields(name, split)]
        for split in splits
    }


def write(tmp_path, content, name="task1_own"):
    """Writes a task file, of a record or as it is, into a data directory."""
    folder = tmp_path / "super_natural_instructions" / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_every_genuine_file_is_read(real_data):
    super_ni.register(str(real_data))
    assert len(registry.names()) == 1405
    home = real_data / "super_natural_instructions"
    listed = set((home / "splits" / "default" / "test_tasks.txt").read_text().split())
    with (home / "kept_instances.tsv").open(encoding="utf-8") as file:
        kept = {row["task"]: int(row["kept"]) for row in csv.DictReader(file, delimiter="\t")}
    total = 0
    for name in registry.names():
        card, splits = registry.card(name), read(name)
        path = pathlib.Path(seqio_bridge.describe_source(name)[1][0])
        stem = path.stem
        assert card.name == name and card.category and card.instruction_level == "task"
        uids = [example.uid for examples in splits.values() for example in examples]
        assert len(set(uids)) == len(uids), name
        total += len(uids)
        assert len(uids) == kept[stem], name
        for examples in splits.values():
            for example in examples:
                assert example.instruction and example.target == example.references[0]
        assert splits.keys() == ({"train", "test"} if stem in listed else {"train", "validation"})
        instances = json.loads(path.read_bytes())["Instances"]
        if stem in listed:
            assert [e.source for e in splits["test"]] == [instance["input"] for instance in instances[:100]]
        else:
            assert min(1, len(uids) - 1) <= len(splits["validation"]) <= 100
            assert len(splits["train"]) >= len(splits["validation"])
    # 42,572 of the first source and 49 of the four files filled from a second.
    assert total == 42572 + 49


def test_drafts_of_2021_without_ids_are_read(real_data):
    paths = sorted((real_data / "super_natural_instructions" / "drafts_2021").glob("*.json"))
    seqio_names = []
    for path in paths:
        name = PREFIX + super_ni.task_name(path.stem)
        super_ni.add_file(path, name=name, category="Misc.")
        seqio_names.append(name)
    total = 0
    for name in seqio_names:
        assert registry.card(name).category == "Misc."
        splits = read(name)
        assert all(example.instruction for example in splits["train"])
        total += sum(map(len, splits.values()))
    assert len(paths) == 24 and total == 720


def test_splits_are_disjoint_complete_and_the_same_in_any_order(tmp_path):
    path = write(tmp_path, RECORD)
    shuffled = write(tmp_path / "shuffled", RECORD | {"Instances": INSTANCES[::-1]})
    split = functools.partial(super_ni.read_split, is_test=False)
    train, validation = ([row["uid"] for row in split(path, name)] for name in ("train", "validation"))
    assert sorted(train + validation) == sorted(instance["id"] for instance in INSTANCES)
    assert len(validation) == 25
    assert {row["uid"] for row in split(shuffled, "validation")} == set(validation)
    # Held-out instances are no block of the file.
    places = [int(uid[2:]) for uid in validation]
    assert places == sorted(places) and places[0] < 60 and places[-1] > 190

    test = list(super_ni.read_split(path, "test", is_test=True))
    assert [row["uid"] for row in test] == [f"t-{i}" for i in range(100)]
    assert len(list(super_ni.read_split(path, "train", is_test=True))) == 150


def test_every_field_is_used(tmp_path):
    record = RECORD | {
        "Source": ["quoref"],
        "URL": [float("nan"), "https://example.org"],
        "Instance License": ["MIT"],
        "Output_language": ["Hindi"],
    }
    write(tmp_path, record, "task2-own")
    super_ni.register(str(tmp_path))
    card = registry.card(PREFIX + "task2_own")
    assert (card.source, card.url, card.licence, card.languages) == (
        "quoref",
        "https://example.org",
        "MIT",
        ("Hindi",),
    )
    assert card.category == "Question Answering" and card.metrics[0] == "rouge_l"
    example = read(card.name)["train"][0]
    assert example.references == (example.target, "also") and example.instruction == "Answer it."


def without(record, field):
    return {name: value for name, value in record.items() if name != field}


def instances(**fields):
    return RECORD | {"Instances": [INSTANCES[0], INSTANCES[1] | fields]}


@pytest.mark.parametrize(
    ("content", "line", "field", "problem"),
    [
        (CUT, CUT.count(b"\n") + 1, None, "not JSON"),
        (b"", 1, None, "the file is empty"),
        (b' {"Definition": "caf\xe9"}', None, None, "not UTF-8 text"),
        (b"[1, 2]", None, None, "must be a JSON object"),
        (without(RECORD, "Definition"), None, "Definition", "this field is missing"),
        (RECORD | {"Definition": [3]}, None, "Definition", "must be a string or a list of strings"),
        (without(RECORD, "Instances"), None, "Instances", "at least one instance"),
        (RECORD | {"Instances": []}, None, "Instances", "at least one instance"),
        (RECORD | {"Instances": {"a": 1}}, None, "Instances", "at least one instance"),
        (RECORD | {"Instances": ["in"]}, None, "Instances[0]", "must be an object"),
        (instances(input=None), None, "Instances[1].input", "must be a string"),
        (instances(output=None), None, "Instances[1].output", "must be a string or a list of strings"),
        (instances(output=[]), None, "Instances[1].output", "has no reference"),
        (without(RECORD, "Categories"), None, "Categories", "this field is missing"),
        (RECORD | {"Categories": []}, None, "Categories", "needs a category"),
        (RECORD | {"Categories": ["Basket Weaving"]}, None, "Categories", "'Basket Weaving'"),
    ],
)
def test_a_bad_file_is_told_by_file_line_and_field(tmp_path, content, line, field, problem):
    path = write(tmp_path, content)
    super_ni.register(str(tmp_path))  # registering opens no task file
    with pytest.raises(InputError, match=problem) as caught:
        registry.card(PREFIX + "task1_own")
        read(PREFIX + "task1_own")
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), line, field)


def test_ids_that_occur_twice_or_are_missing(tmp_path):
    rows = [{"input": "a", "output": "b"}, {"id": "x", "input": "c", "output": "d"}]
    path = write(tmp_path, RECORD | {"Definition": "Do.", "Instances": [*rows, rows[1]]})
    read_rows = list(super_ni.read_instances(path))
    assert [row["uid"] for row in read_rows] == ["task1_own-0", "x", "x-2"]
    assert read_rows[0]["instruction"] == "Do." and read_rows[0]["references"] == ["b"]


def test_a_folder_without_tasks(tmp_path):
    with pytest.raises(InputError, match=r"no task files here.*data_dir") as caught:
        super_ni.register(str(tmp_path))
    assert caught.value.path == str(tmp_path / "tasks")
