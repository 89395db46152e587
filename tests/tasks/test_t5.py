"""T5's sets: every real file, small files of each form, TFDS, and bad ones."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.errors import InputError
from tasks import t5
from tests.tasks import registered


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def write(home, name, text):
    path = home / "t5" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")


def test_every_real_file_is_read(real_data):
    t5.register(str(real_data))
    tasks = registered.read_all()
    counts = {name: {split: len(rows) for split, rows in splits.items()} for name, splits in tasks.items()}
    assert counts["t5.glue_cola"] == {"train": 1000, "validation": 1043}
    assert counts["t5.glue_mrpc"]["train"] + counts["t5.glue_mrpc"]["test"] == 1400
    assert sum(counts["t5.glue_sst2"].values()) == 1600
    # MultiRC's 32 training rows are the answers of its nested passages; the manifest counts lines.
    superglue = [sizes["train"] for name, sizes in counts.items() if name.startswith("t5.super_glue_")]
    assert len(superglue) == 8 and superglue.count(32) == 7
    for splits in tasks.values():
        for rows in splits.values():
            assert all(row.target in (row.candidates or row.references) for row in rows)


def test_questions_are_read_from_small_files(tmp_path):
    answers = [{"text": "Paris"}, {"text": "in Paris"}]
    paragraph = {
        "context": "She lives in Paris.",
        "qas": [{"id": "q", "question": "Where?", "answers": answers}],
    }
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        write(tmp_path, f"squad/{name}", json.dumps({"data": [{"title": "T", "paragraphs": [paragraph]}]}))
    t5.register(str(tmp_path))
    (splits,) = registered.read_all().values()
    (row,) = splits["train"]
    assert row.source == "question: Where? context: She lives in Paris."
    assert (row.target, tuple(row.references)) == ("Paris", ("Paris", "in Paris"))


def test_parallel_files_must_end_together(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path, f"wmt16_enro/{split}.en", "One.\n\nThree.\n")
        write(tmp_path, f"wmt16_enro/{split}.ro", "Unu.\nDoi.\nTrei.\n")
    t5.register(str(tmp_path))
    rows = registered.read("t5.wmt16_enro")["test"]
    assert [(row.source, row.target) for row in rows] == [
        ("translate English to Romanian: One.", "Unu."),
        ("translate English to Romanian: Three.", "Trei."),
    ]
    write(tmp_path, "wmt16_enro/test.ro", "Unu.\n")
    with pytest.raises(InputError, match=r"test\.ro.*ends at line 1"):
        registered.read("t5.wmt16_enro")


def test_a_bad_row_is_reported_with_its_file_and_line(tmp_path):
    write(tmp_path, "glue/SST-2/train.tsv", "sentence\tlabel\ngood\t1\nbad\t7\n")
    t5.register(str(tmp_path))
    with pytest.raises(InputError) as caught:
        registered.read_all()
    assert caught.value.line == 3


def test_a_folder_without_any_set_is_named(tmp_path):
    with pytest.raises(InputError, match="t5"):
        t5.register(str(tmp_path))


def test_papers_seven(tmp_path):
    t5.register(str(tmp_path), papers_seven=True, tfds=True)
    assert len(registry.names()) == 7


def test_tfds_rows_become_the_same_examples_as_those_of_files(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    features = {"sentence": tfds.features.Text(), "label": tf.int64}
    made = [{"sentence": text, "label": label} for text, label in (("good", 1), ("bad", 0), ("none", -1))]
    registered.write_tfds(tmp_path / "tfds", "tiny_sst", features, made)
    here = {"name": "tiny_sst:1.0.0", "splits": {"train": "train"}}
    known = {"glue_sst2": {**t5.definitions()["glue_sst2"], "tfds": here}}
    monkeypatch.setattr(t5, "definitions", lambda: known)
    t5.register(str(tmp_path), tfds=True)
    rows = registered.read("t5.glue_sst2")["train"]
    found = {(row.source, row.target, tuple(row.candidates)) for row in rows}
    words = ("negative", "positive")
    assert found == {
        ("sst2 sentence: good", "positive", words),
        ("sst2 sentence: bad", "negative", words),
    }
