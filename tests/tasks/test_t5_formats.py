"""T5's releases: the manifest's counts, files in the original formats, words and marks, bad files, TFDS."""

import json
import re

import pytest

pytest.importorskip("seqio")

from etils import epath

from iml.errors import InputError
from tasks import t5
from tasks.t5 import tfds as t5_tfds
from tests.tasks import registered

WORDS = {"idx": 3, "sentence1": "You feel it.", "sentence2": "It felt odd.", "word": "feel", "label": 1}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def read_file(name, path):
    return list(t5.TextTask(name, epath.Path(path).parent, {"train": (epath.Path(path),)}).read("train"))


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_counts_are_those_of_the_manifest(real_data):
    counted = registered.manifest(real_data, "t5")
    t5.register(str(real_data))
    sizes = {
        name: {split: len(rows) for split, rows in splits.items()}
        for name, splits in registered.read_all().items()
    }
    assert len(sizes) == 12
    assert sum(sizes["t5.glue_cola"].values()) == counted["CoLA"]
    assert sum(sizes["t5.glue_sst2"].values()) == counted["SST-2 tsv"]
    # MRPC's validation split stands in hf_raw, which the manifest counts elsewhere.
    mrpc = sizes["t5.glue_mrpc"]
    assert mrpc["train"] + mrpc["test"] == counted["MRPC (original MSR files)"]
    # The manifest counts lines: one of MultiRC has many answers, each an example; the 40 lines of each of four
    # files have no label.
    multirc = real_data / "t5" / "superglue" / "MultiRC" / "train.jsonl"
    lines = [json.loads(line) for line in multirc.read_text().splitlines()]
    answers = sum(len(question["answers"]) for line in lines for question in line["passage"]["questions"])
    superglue = {name: splits["train"] for name, splits in sizes.items() if "super_glue" in name}
    assert superglue.pop("t5.super_glue_multirc") == answers
    [group] = [size for name, size in counted.items() if name.startswith("SuperGLUE")]
    assert len(lines) + sum(superglue.values()) + 4 * 40 == group


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("squad", "rc/squad.json", 5),
        ("squad_v2", "rc/squad2.json", 6),
        ("super_glue_record", "rc/record.json", 2),
        ("super_glue_rte", "rc/superglue_rte.jsonl", 4),
        ("super_glue_boolq", "classification/boolq.jsonl", 5),
        ("glue_qqp", "pair_classification/quora_paraphrase.tsv", 3),
        ("glue_sst2", "classification/sst.txt", 2),
    ],
)
def test_real_files_in_the_original_formats(real_data, name, file, count, monkeypatch):
    if name == "glue_qqp":
        known = {**t5.definitions()[name], "columns": ["label", "question1", "question2", "id"]}
        monkeypatch.setitem(t5.definitions(), name, known)
    examples = read_file(name, real_data / "t5" / "format_fixtures" / file)
    assert len(examples) == len({example["uid"] for example in examples}) == count
    assert all(example["target"] in example["candidates"] for example in examples if example["candidates"])


def test_unlabelled_files_hold_no_example(real_data):
    for file in sorted((real_data / "t5" / "superglue").glob("*/unlabeled.jsonl")):
        with pytest.raises(InputError, match="holds no example that has an answer"):
            read_file(f"super_glue_{file.parent.name.lower()}", file)


def test_words_of_labels_scores_and_marks(tmp_path):
    header = "index\tsentence1\tsentence2\t"
    write(tmp_path, "t5/glue/STS-B/train.tsv", f"{header}score\n0\tA.\tB.\t3.25\n1\tC.\tD.\t5\n")
    write(tmp_path, "t5/glue/MNLI/train.tsv", f"{header}gold_label\n0\tP.\tH.\tcontradiction\n1\tA.\tB.\t-\n")
    write(tmp_path, "t5/glue/QQP/train.tsv", "id\tquestion1\tquestion2\tis_duplicate\n0\ta\n1\tA?\tB?\t1\n")
    target = {"span1_text": "the old key", "span1_index": 4, "span2_text": "it", "span2_index": 10}
    schema = {"text": "Ann lost her bag, the old key and Ben found it.", "target": target, "label": False}
    write(tmp_path, "t5/superglue/WSC/train.jsonl", json.dumps(schema))
    t5.register(str(tmp_path))
    found = {
        name: [(example.source, example.target) for example in splits["train"]]
        for name, splits in registered.read_all().items()
    }
    assert found == {
        "t5.glue_stsb": [
            ("stsb sentence1: A. sentence2: B.", "3.2"),
            ("stsb sentence1: C. sentence2: D.", "5.0"),
        ],
        "t5.glue_mnli": [("mnli hypothesis: H. premise: P.", "contradiction")],
        "t5.glue_qqp": [("qqp question1: A? question2: B?", "duplicate")],
        "t5.super_glue_wsc": [("wsc text: Ann lost her bag, * the old key * and Ben found # it. #", "False")],
    }


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("glue_rte", "train.tsv", "sentence1\tsentence2\tlabel\na\tb\n", "train.tsv:2: has 2 of 3 columns"),
        ("glue_rte", "train.tsv", "sentence1\tlabel\na\tentailment\n", "train.tsv:2, field 'sentence2'"),
        ("glue_cola", "train.tsv", "gj04\t7\t\tIt is.\n", "train.tsv:1: is not of the form of glue_cola"),
        ("super_glue_wic", "train.jsonl", '{"label": true\n', "train.jsonl:1: is not JSON"),
        ("super_glue_multirc", "train.jsonl", '{"passage": {"questions": [{}]}}\n', "is not of its form"),
        ("super_glue_copa", "train.jsonl", '{"premise": "a"}\n', "holds no example that has an answer"),
        ("squad", "train.json", '{"version": 1}', "field 'data'"),
        ("squad", "train.xml", "<a/>", "is of an unknown format"),
        ("wmt14_ende", "train.en", "a\nb\n", "train.de:1: cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, file, text, said):
    with pytest.raises(InputError) as error:
        read_file(name, write(tmp_path, file, text))
    assert said in str(error.value)


def test_rows_through_tfds_are_those_of_files(tmp_path, monkeypatch):
    import numpy as np
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    answers = {"text": ["Rome", "in Rome"], "answer_start": [3, 0]}
    sets = {
        "super_glue_wic": (
            "super_glue/wic",
            {"idx": np.int32, "sentence1": text, "sentence2": text, "word": text}
            | {"label": tfds.features.ClassLabel(names=["False", "True"])},
            [{**WORDS, "label": -1}, WORDS],
        ),
        "squad": (
            "squad/none",
            {"id": text, "question": text, "context": text}
            | {"answers": tfds.features.Sequence({"text": text, "answer_start": np.int32})},
            [{"id": "q", "question": "Where?", "context": "In Rome.", "answers": answers}],
        ),
        "wmt16_enro": (
            "wmt16/ro-en",
            {"en": text, "ro": text},
            [{"en": "Thanks.", "ro": "Mulțumesc."}],
        ),
    }
    for name, (folder, features, rows) in sets.items():
        registered.write_tfds(tmp_path / "tfds", f"tiny_{name}", features, rows)
        known = {"name": f"tiny_{name}:1.0.0", "splits": {"train": "train"}}
        monkeypatch.setitem(t5.definitions(), name, {**t5.definitions()[name], "tfds": known})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write(tmp_path, f"files/hf_raw/{folder}/train.jsonl", lines)
    t5_tfds.register(str(tmp_path))
    through_tfds = {name: registered.read(f"t5.{name}")["train"] for name in sets}
    registered.clear()
    t5.register(str(tmp_path / "files"))
    for name, [example] in through_tfds.items():
        [other] = registered.read(f"t5.{name}")["train"]
        assert {**example.to_json(), "uid": ""} == {**other.to_json(), "uid": ""}, name
    assert through_tfds["squad"][0].references == ("Rome", "in Rome")
    assert through_tfds["super_glue_wic"][0].candidates == ("False", "True")


def test_a_row_of_multirc_is_named_by_its_question_in_both_releases(tmp_path):
    """By that `multirc_em` knows what belongs together."""
    nested = {
        "text": "P.",
        "questions": [{"question": "Q?", "answers": [{"text": "A", "label": 1}, {"text": "B", "label": 0}]}],
    }
    flat = [
        {"paragraph": "P.", "question": "Q?", "answer": text, "label": label,
         "idx": {"paragraph": 3, "question": 4, "answer": 5 + place}}
        for place, (text, label) in enumerate([("A", 1), ("B", 0)])
    ]  # fmt: skip
    for number, rows in enumerate(([{"idx": 0, "passage": nested}], flat)):
        folder = tmp_path / str(number) / "t5" / "superglue" / "MultiRC"
        folder.mkdir(parents=True)
        (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    uids = []
    for number in range(2):
        registered.clear()
        t5.register(str(tmp_path / str(number)))
        uids.append([e.uid for e in registered.read("t5.super_glue_multirc")["validation"]])
    registered.clear()
    assert uids == [["1-0-0", "1-0-1"], ["3-4-5", "3-4-6"]]
    passage = t5.card("super_glue_multirc").drawn_together
    assert [re.match(passage, found[0])[0] for found in uids] == ["1", "3"]
