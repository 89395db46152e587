"""RAFT: every genuine file, the benchmark's example prompts, HELM's split, and bad files."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.errors import InputError
from tasks import raft
from tests.tasks.evaluation_only import empty_registries, manifest, read, splits  # noqa: F401

ROWS = "Tweet,Note,Label,ID\n" + "".join(
    f'"t{i}\nmore",n,{"yes" if i % 2 else "no"},{i}\n' for i in range(12)
)
TASK = {"name": "own", "data_columns": ["Tweet", "ID"], "label_columns": {"Label": ["no", "yes"]}}


def write(tmp_path, rows=ROWS, task=TASK, settings=({"own": ["Note", "Tweet"]}, {"own": "Say yes or no."})):
    folder = tmp_path / "raft" / "data" / "own"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(rows)
    (folder / "task.json").write_text(json.dumps(task))
    path = tmp_path / "raft" / "prompt_construction_settings.jsonl"
    path.write_text("\n".join(map(json.dumps, settings)))
    raft.register(str(tmp_path))
    return folder


def test_every_genuine_file_is_read(real_data):
    numpy = pytest.importorskip("numpy")
    raft.register(str(real_data))
    tasks, _ = manifest(real_data, "raft")
    assert len(registry.names()) == tasks["tasks"]
    # train_test_split of `datasets`: a permutation of which the first 40 are the test rows.
    drawn = numpy.random.default_rng(42).permutation(50)[40:]
    total = 0
    for name in registry.names():
        examples = {split: read(name, split) for split in splits(name)}
        assert {split: len(rows) for split, rows in examples.items()} == {
            "exemplars": 10,
            "test": 40,
            "unlabelled": 60,
        }
        total += sum(map(len, examples.values()))
        assert [int(example.uid) for example in examples["exemplars"]] == drawn.tolist()
        uids = {example.uid for rows in examples.values() for example in rows}
        assert len(uids) == 110
        for example in (*examples["exemplars"], *examples["test"]):
            assert example.target in example.candidates
        assert not any(example.target for example in examples["unlabelled"])
    assert total == tasks["examples"]


def test_prompts_are_laid_out_as_the_benchmarks_examples(real_data):
    raft.register(str(real_data))
    for name in registry.names():
        written = (real_data / "raft" / "example_prompts" / f"{name[5:]}.txt").read_text(encoding="utf-8")
        [example, *_] = read(name, "test")
        first = example.source.partition(":")[0]
        assert written.startswith(f"{example.instruction}\n{first}: "), name
        # The last field of the question that the example prompt ends with, then the label.
        *_, last = (line.partition(":")[0] for line in written.strip().splitlines()[-2:-1])
        assert written.rstrip().endswith("\nLabel:") and example.source.endswith("\nLabel:")
        assert name == "raft.one_stop_english" or last in {line.partition(":")[0] for line in
                                                           example.source.splitlines()}  # fmt: skip


def test_fields_stand_in_the_settings_order(tmp_path):
    write(tmp_path)
    assert splits("raft.own") == ("exemplars", "test")
    exemplars, test = read("raft.own", "exemplars"), read("raft.own", "test")
    assert [example.uid for example in exemplars] == ["0", "2", "1", "8"]
    assert {example.uid for example in test} == {"3", "4", "5", "6", "7", "9", "10", "11"}
    assert test[0].source == "Note: n\nTweet: t3\nmore\nLabel:" and test[0].target == "yes"
    assert test[0].instruction == "Say yes or no.\nPossible labels:\n1. no\n2. yes\n"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": ROWS.replace(",yes,3", ",maybe,3")}, "train.csv:9, field 'Label'.*maybe"),
        ({"rows": ROWS.replace("Note", "Remark")}, "train.csv:1, field 'Note'"),
        ({"task": {"label_columns": {}}}, "task.json, field 'Label'"),
        ({"settings": ({}, {})}, "settings.jsonl:1, field 'own'"),
        ({"settings": ({},)}, "settings.jsonl: needs two lines"),
    ],
)
def test_a_bad_file_is_told(tmp_path, change, told):
    write(tmp_path, **change)
    with pytest.raises(InputError, match=told):
        read("raft.own", "test")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"raft/data.*Copy"):
        raft.register(str(tmp_path))
