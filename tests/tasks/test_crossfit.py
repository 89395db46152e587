"""CrossFit's and MetaICL's files: every real one, samples, candidates, and bad ones."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import crossfit, metaicl
from tests.tasks import registered


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def write(folder, name, text):
    folder = folder / name.partition("_16_")[0].partition("_train")[0]
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(text.encode())


def count(tasks):
    return sum(len(examples) for splits in tasks.values() for examples in splits.values())


def test_every_real_file_of_crossfit_is_read(real_data):
    crossfit.register(str(real_data))
    tasks = registered.read_all()
    assert len(tasks) == 113
    assert count(tasks) == registered.manifest(real_data, "crossfit")["few-shot tsv, converted"]
    known = {
        name
        for split in (real_data / "crossfit" / "custom_tasks_splits").glob("*.json")
        for names in json.loads(split.read_text()).values()
        if isinstance(names, list)
        for name in names
    }
    assert known == set(crossfit.definitions())
    for name, splits in tasks.items():
        ranked = registry.card(name).metrics == ("accuracy",)
        for example in (example for examples in splits.values() for example in examples):
            assert ranked == bool(example.candidates), name
            assert not ranked or example.target in example.candidates


def test_every_real_file_of_metaicl_is_read(real_data):
    total = 0
    for sample in ("16_100", "16_13"):
        registered.clear()
        metaicl.register(str(real_data), sample)
        tasks = registered.read_all()
        total += count(tasks)
        assert len(tasks) == 113
    assert total == registered.manifest(real_data, "metaicl")["few-shot data, k=16"]
    for file in (real_data / "metaicl" / "config" / "tasks").glob("*.json"):
        name = crossfit.task_name(f"metaicl_{file.stem}")
        config = json.loads(file.read_text())
        if name in tasks and config["options"]:
            found = {text for examples in tasks[name].values() for e in examples for text in e.candidates}
            assert found == set(config["options"]), name


def test_both_editions_go_together_and_ask_the_same(real_data):
    crossfit.register(str(real_data))
    metaicl.register(str(real_data))
    assert len(registry.names()) == 226
    ours, theirs = (registered.read(crossfit.task_name(name)) for name in ("ai2_arc", "metaicl_ai2_arc"))
    for one, other in zip(ours["train"], theirs["train"], strict=True):
        assert one.source.startswith(other.source) and one.candidates == other.candidates
        assert one.source.startswith("Answer the science question by one of its choices. ")


def test_clusters_have_categories():
    for name, definition in crossfit.definitions().items():
        assert canonical_category("crossfit", definition["cluster"]), name
        assert definition["instruction"].endswith((".", "?")), name


def test_files_of_a_task(tmp_path):
    write(tmp_path, "own_train.tsv", "one\tfirst\tuno\r\n\ntwo\tsecond\t\n")
    write(tmp_path, "glue-cola_16_13_train.tsv", "a\tgood\nb\tbad\n")
    write(tmp_path, "glue-cola_16_100_train.tsv", "c\tgood\n")
    write(tmp_path, "glue-cola_16_100_dev.tsv", "d\tbad\n")
    crossfit.register(str(tmp_path))
    own, cola = registered.read("crossfit.own"), registered.read("crossfit.glue_cola")
    assert [(e.uid, e.source, e.references) for e in own["train"]] == [
        ("1", "one", ("first", "uno")),
        ("3", "two", ("second",)),
    ]
    assert registry.card("crossfit.own").category == "Misc."
    assert [e.source for e in cola["train"]] == ["Is the sentence acceptable English? c"]
    assert cola["validation"][0].candidates == ("bad", "good")
    registered.clear()
    crossfit.register(str(tmp_path), sample="16_13")
    assert registry.names() == ("crossfit.glue_cola",)
    assert [e.target for e in registered.read("crossfit.glue_cola")["train"]] == ["good", "bad"]


@pytest.mark.parametrize(
    ("module", "name", "text", "said"),
    [
        (crossfit, "own_16_1_train.tsv", "a\tb\nc\n", "train.tsv:2: has 1 of 2 columns"),
        (crossfit, "own_16_1_train.tsv", "a\t \n", "train.tsv:1: has no output"),
        (crossfit, "own_16_1_train.tsv", "\n", "train.tsv: holds no example"),
        (metaicl, "own_16_1_train.jsonl", '{"input": "a", "output": "b"}', "field 'options'"),
        (
            metaicl,
            "own_16_1_train.jsonl",
            '{"input": "a", "output": "b", "options": ["c", "d"]}',
            "not an option",
        ),
        (metaicl, "own_16_1_train.jsonl", '{"input": 1, "output": "b", "options": []}', "must be a string"),
    ],
)
def test_bad_files_are_named(tmp_path, module, name, text, said):
    write(tmp_path, name, text)
    module.register(str(tmp_path))
    with pytest.raises(InputError) as error:
        registered.read_all()
    assert said in str(error.value)


@pytest.mark.parametrize("module", [crossfit, metaicl])
def test_a_folder_without_tasks_is_refused(tmp_path, module):
    with pytest.raises(InputError, match="no task of"):
        module.register(str(tmp_path))
