"""FLAN 2021's rows and templates and Flan 2022's exports: every real file, each form of row, and bad ones."""

import json
import pickle
import re

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example
from iml.errors import InputError
from tasks import flan
from tasks.flan import collection_2022, fields
from tasks.flan import tfds as flan_tfds
from tests.tasks import registered

#: Rows of the real data that each set has, of all its splits together. MANIFEST.json counts data sets of `hf_raw`
#: together with others, and MultiRC and ReCoRD by passage rather than by question.
ROWS = {
    "ag_news_subset": 500,
    "anli_r1": 200,
    "arc_challenge": 299,
    "arc_easy": 300,
    "bool_q": 32 + 300,
    "cb": 32 + 56,
    "cola": 1000 + 1043,
    "copa": 32 + 100,
    "cosmos_qa": 300,
    "dart": 300,
    "e2e_nlg": 222 + 120,
    "glue_mrpc": 300,
    "hellaswag": 300,
    "multirc": 154,
    "natural_questions": 300,
    "openbookqa": 300,
    "piqa": 300,
    "record": 32,
    "rte": 32 + 277,
    "sst2": 1000 + 300,
    "trivia_qa": 300,
    "web_nlg_en": 124,
    "wic": 32,
    "winogrande": 300,
    "wsc": 32,
}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def write_rows(root, folder, rows, split="train"):
    path = root / "hf_raw" / folder / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_templates(root, text):
    (root / "flan").mkdir(exist_ok=True)
    (root / "flan" / "templates.yaml").write_text(text)


def test_every_real_row_stands_under_every_template(real_data):
    flan.register(str(real_data))
    counts = {}
    for name in registry.names():
        ranked = registry.card(name).metrics == ("accuracy",)
        templates = [one.name for one in flan.own_templates()[name.removeprefix("flan.")] if not one.inverted]
        splits = registered.read(name)
        counts[name.removeprefix("flan.")] = sum(map(len, splits.values())) / len(templates)
        for example in (example for examples in splits.values() for example in examples):
            assert ranked == bool(example.candidates), name
            assert ("OPTIONS:\n- " in example.source) == ranked, name
            assert not ranked or {example.target, *example.references} <= set(example.candidates), name
        for examples in splits.values():
            uids = {example.uid for example in examples}
            assert {(e.uid, e.template) for e in examples} == {(u, t) for u in uids for t in templates}
    assert counts == ROWS


def test_each_set_has_templates_a_card_and_fields_that_fit():
    assert set(flan.definitions()) == set(flan.own_templates())
    for name, definition in flan.definitions().items():
        templates = flan.own_templates()[name]
        task = flan.FlanTask(name, definition, templates)
        task.check()
        assert re.fullmatch(r"flan\.[A-Za-z0-9_.:]+", task.card().name)
        assert 2 <= sum(not template.inverted for template in templates) <= 3, name
        for template in templates:
            asks = [field for _, field in template.holes()]
            assert ("options_" in asks) <= bool(definition.get("options")), name
            assert template.inverted or bool(definition.get("options")) == ("options_" in asks), name


#: Data set -> a row as HF's `datasets` or TFDS has it, and (source's end, target, references' count) it must give.
FORMS = {
    "stsb": ({"sentence1": "A", "sentence2": "B", "label": 3.5}, "- 5", "4", 1),
    "sentiment140": ({"text": "ah", "sentiment": 4}, "- positive", "positive", 1),
    "squad_v2": (
        {"title": "T", "context": "C", "question": "Q?", "answers": {"text": [], "answer_start": []}},
        "Q?",
        "unanswerable",
        1,
    ),
    "story_cloze": (
        {**{f"input_sentence_{n}": f"S{n}." for n in range(1, 5)}, "sentence_quiz1": "no", "sentence_quiz2": "end"}
        | {"answer_right_ending": 2},
        "- end",
        "end",
        1,
    ),
    "coqa": (
        {"story": "S", "questions": ["a?", "b?"], "answers": {"input_text": ["x", "y"]}},
        "(1) a?\n(2) b?",
        "(1) x\n(2) y",
        1,
    ),
    "trec": ({"text": "Who?", "coarse_label": 3, "fine_label": 1}, "- a number", "a human being", 1),
    "common_gen": ({"concepts": ["dog", "run"], "target": "A dog runs."}, ": dog, run", "A dog runs.", 1),
    "dart": (
        {"tripleset": [["a", "b", "c"], ["d", "e", "f"]], "annotations": {"text": ["one", "two"]}},
        "a | b | c; d | e | f\n\nPut this data into words.",
        "one",
        2,
    ),
    "e2e_nlg": ({"meaning_representation": "name[X]", "human_reference": "X."}, "sentence or two.", "X.", 1),
    "drop": (
        {"passage": "P", "question": "How many?", "answers_spans": {"spans": ["2", "two"], "types": ["n", "s"]}},
        "How many?",
        "2",
        2,
    ),
    "wmt16_translate_deen": ({"translation": {"de": "Ja", "en": "Yes"}}, "this to English.", "Yes", 1),
    "para_crawl_enes": ({"en": "Yes", "es": "Sí"}, "Yes\n\nTranslate this to Spanish.", "Sí", 1),
    "fix_punct": ({"text": "Yes, he did."}, "back: Yes he did", "Yes, he did.", 1),
    "true_case": ({"text": "Yes, Ann."}, "letters: yes, ann.", "Yes, Ann.", 1),
    "word_segment": ({"text": "so it is"}, "words: soitis", "so it is", 1),
    "math_dataset": ({"question": "b'Solve x = 1.\\n'", "answer": "b'1\\n'"}, "Solve x = 1.", "1", 1),
    "wiki_lingua_english_en": (
        {"source": "Long.", "target": "Short.", "references": ["Short.", "Brief."]},
        "in brief.",
        "Short.",
        2,
    ),
    "opinion_abstracts_idebate": (
        {"_debate_name": "D", "_claim": "C", "_argument_sentences": {"value": ["x", "y"], "_key": ["0", "1"]}},
        "\nx\ny\n\nWhat do they claim together?",
        "C",
        1,
    ),
    "definite_pronoun_resolution": (
        {"sentence": "It is.", "pronoun": "It", "candidates": ["a", "b"], "label": 1},
        "- b",
        "b",
        1,
    ),
    "multi_news": ({"document": "D", "summary": " S "}, "in brief.", "S", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_rows_of_odd_forms(name):
    row, end, target, references = FORMS[name]
    task = flan.FlanTask(name, flan.definitions()[name], flan.own_templates()[name])
    example = next(task.render(row, "1", "rows", 1))
    assert example["source"].endswith(end), example["source"]
    assert (example["target"], len(example["references"])) == (target, references)


#: Data set -> the file of the real data that is of its release's form, where it must lie, and (rows, a target).
RELEASES = {
    "squad_v1": (
        "t5/format_fixtures/rc/squad.json",
        "raw/squad/train-v1.1.json",
        5,
        "Saint Bernadette Soubirous",
    ),
    "squad_v2": ("t5/format_fixtures/rc/squad2.json", "raw/squad/dev-v2.0.json", 6, "unanswerable"),
    "drop": ("t5/format_fixtures/rc/drop.json", "raw/drop/drop_dataset_train.json", 19, "sixth terminal"),
    "quac": (
        "t5/format_fixtures/rc/dialog_qa/quac_sample.json",
        "raw/quac/val_v0.2.json",
        12,
        "blueprint for hip hop music.",
    ),
    "snli": ("t5/format_fixtures/pair_classification/snli.jsonl", "raw/snli/snli_1.0_dev.jsonl", 3, "yes"),
    "glue_mrpc": ("t5/glue/MRPC/msr_paraphrase_test.txt", "t5/glue/MRPC/msr_paraphrase_test.txt", 400, "yes"),
}


@pytest.mark.parametrize("name", RELEASES)
def test_releases_in_their_own_form(name, real_data, tmp_path):
    source, target, rows, answer = RELEASES[name]
    (tmp_path / target).parent.mkdir(parents=True)
    (tmp_path / target).write_bytes((real_data / source).read_bytes())
    flan.register(str(tmp_path))
    [examples] = registered.read(f"flan.{name}").values()
    assert len({example.uid for example in examples}) == rows
    assert answer in {example.target for example in examples}
    # The same file, cut in the middle.
    (tmp_path / target).write_bytes(
        (real_data / source).read_bytes()[: (real_data / source).stat().st_size // 2 + 9]
    )
    with pytest.raises(InputError) as error:
        registered.read(f"flan.{name}")
    assert error.value.path == str(tmp_path / target)


def test_turns_of_a_dialogue_are_examples(tmp_path):
    row = {"wikipedia_page_title": "T", "section_title": "S", "background": "B", "context": "C"}
    answers = {"texts": [["x", "x", "z"], ["CANNOTANSWER"]], "answer_starts": [[0, 0, 1], [9]]}
    write_rows(tmp_path, "quac/none", [{**row, "questions": ["a?", "b?"], "answers": answers}])
    flan.register(str(tmp_path))
    first, _, second, _ = registered.read("flan.quac")["train"]
    assert first.source == "C\n\nQ: a? A:"
    assert (first.uid, first.references) == ("train-1", ("x", "z"))
    assert (second.uid, second.target) == ("train-1-1", "unanswerable")
    assert second.source == "C\nQ: a? A: x\nQ: b? A:"


def spoilt(value):
    """The value with each part of it replaced by odd ones, in turn."""
    yield from (
        None,
        -1,
        7,
        2.5,
        float("inf"),
        True,
        "x",
        "",
        [],
        {},
        ["a"],
        {"a": 1},
        [[1]],
        "A\ud800",
        10**30,
    )
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for odd in spoilt(value[key]):
            changed = value.copy()
            changed[key] = odd
            yield changed
        if isinstance(value, dict):
            yield {other: value[other] for other in value if other != key}


@pytest.mark.parametrize("name", FORMS)
def test_spoilt_rows_are_bad_input_at_most(name):
    task = flan.FlanTask(name, flan.definitions()[name], flan.own_templates()[name])
    for row in spoilt(FORMS[name][0]):
        if isinstance(row, dict):
            try:
                for fields in task.render(row, "1", "rows", 1):
                    assert Example.from_json(fields).references[0] == fields["target"]
            except InputError as error:
                assert error.path == "rows"


def test_withheld_answers_and_other_labels_are_left_out(tmp_path):
    rows = [{"premise": "p", "hypothesis": "h", "label": label} for label in (-1, 2, 0)]
    write_rows(tmp_path, "glue/mnli", rows, "validation_mismatched")
    flan.register(str(tmp_path))
    assert registry.names() == ("flan.mnli_mismatched",)
    found = registered.read("flan.mnli_mismatched")["validation"]
    assert {(example.uid, example.target) for example in found} == {
        ("validation-2", "no"),
        ("validation-3", "yes"),
    }
    assert not list(fields.instances(flan.definitions()["sentiment140"], {"text": "a", "sentiment": 2}))


OWN = """
piqa:
- {name: one, source: "Do {goal} {{}}? {options_}", target: "I would: {answer}"}
- {name: two, source: "{answer}", target: "{goal}", inverted: true}
"""


def test_own_templates_replace_those_of_the_sets_they_name(tmp_path):
    rows = [{"goal": "{answer} {x} {0.__class__}", "sol1": "a", "sol2": "b", "label": 1}]
    write_rows(tmp_path, "piqa/plain_text", rows)
    write_rows(tmp_path, "xsum/none", [{"document": "D", "summary": "S"}])
    write_templates(tmp_path, OWN.replace(" {{}}", ""))
    flan.register(str(tmp_path))
    [example] = registered.read("flan.piqa")["train"]
    assert example.source == "Do {answer} {x} {0.__class__}? OPTIONS:\n- a\n- b"
    assert (example.target, example.candidates) == ("I would: b", ("I would: a", "I would: b"))
    assert len(registered.read("flan.xsum")["train"]) == 2
    assert str(tmp_path / "flan" / "templates.yaml") in seqio_bridge.describe_source("flan.piqa")[1]
    registered.clear()
    flan.register(str(tmp_path), inverted=True)
    asked, turned = registered.read("flan.piqa")["train"]
    assert (asked.uid, asked.template) == (turned.uid, "one")
    assert (turned.source, turned.candidates) == ("b", ())
    assert "inverted" in registry.card("flan.piqa").source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("piqa: [{name: n, source: '{goal.__class__}'}]", "yaml, field 'goal.__class__'.*'n' of piqa"),
        ("piqa: [{name: n, source: '{sol1[0]}'}]", "unknown field in its source.*Fields of piqa"),
        ("piqa: [{name: n, source: '{goal!r:>9999999999}', target: '{answer}'}]", "unknown field"),
        ("piqa: [{name: n, source: '{}', target: '{answer}'}]", "unknown field"),
        ("xsum: [{name: n, source: '{options_}', target: '{answer}'}]", "'options_'.*unknown field"),
        ("piqa: [{name: n, source: a, target: b}]", "does not hold {answer}"),
        ("piqa: [{name: n, source: [a], target: b}]", r"piqa\[1\]\.source.*must be a string, not list"),
        ("piqa: [{name: n, source: a, target: '{answer}', x: 1}]", r"piqa\[1\]\.x.*unknown key"),
        ("piqa: [{source: a, target: '{answer}'}]", "needs a name and a source"),
        ("piqa: [{name: n, source: a}, {name: n, source: a}]", "two templates of the name 'n'"),
        ("piqa: [{name: n, source: '{answer}', target: '{goal}', inverted: true}]", "inverted templates only"),
        ("piqa: []", "must be a list of templates"),
        ("[piqa]", "must be a mapping"),
        ("1: []", "must be a string, not int"),
        ("nobody: [{name: n, source: a}]", "FLAN has no such data set"),
        ("piqa: !!python/object/apply:os.getcwd []", "yaml:1.*is not YAML"),
        ("piqa: [", "is not YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\npiqa: [{name: n, source: *c}]", "must be a"),
        ("[" * 5000, "is not YAML"),
    ],
)  # fmt: skip
def test_bad_templates_are_named(tmp_path, text, said):
    write_rows(tmp_path, "piqa/plain_text", [{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}])
    write_rows(tmp_path, "xsum/none", [{"document": "D", "summary": "S"}])
    write_templates(tmp_path, text)
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)) as error:
        flan.register(str(tmp_path))
        for name in registry.names():
            registered.read(name)
    assert "templates.yaml" in str(error.value)


def test_templates_of_a_module(tmp_path, monkeypatch):
    write_rows(tmp_path, "xsum/none", [{"document": "D", "summary": "S"}])
    (tmp_path / "own_flan_templates.py").write_text(
        "TEMPLATES = {'xsum': [{'name': 'tl', 'source': '{text} tl;dr', 'target': '{answer}'}]}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    flan.register(str(tmp_path), templates="own_flan_templates")
    assert [example.source for example in registered.read("flan.xsum")["train"]] == ["D tl;dr"]
    with pytest.raises(InputError, match="offers no templates"):
        flan.register(str(tmp_path), templates="no_such_module")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"goal": "g", "sol1": "a", "sol2": "b", "label": 2}, "row 2 is not of piqa's form.*label 2"),
        ({"goal": "g", "sol1": "a", "sol2": "b", "label": "x"}, "row 2"),
        ({"goal": "g", "sol1": "a", "sol2": "b", "label": [1]}, "row 2"),
        ({"goal": "g", "sol1": "a", "label": 0}, "row 2.*sol2"),
        ({"goal": {"a": 1}, "sol1": "a", "sol2": "b", "label": 0}, "row 2.*is not text"),
        ({"sol1": "a", "sol2": "b", "label": 0}, "row 2.*goal"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, said):
    path = write_rows(tmp_path, "piqa/plain_text", [{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}, row])
    flan.register(str(tmp_path))
    with pytest.raises(InputError, match=said) as error:
        registered.read("flan.piqa")
    assert error.value.path == str(path)


def test_no_rows_and_empty_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no data set of FLAN"):
        flan.register(str(tmp_path))
    write_rows(tmp_path, "xsum/none", [])
    flan.register(str(tmp_path))
    with pytest.raises(InputError, match="holds no example"):
        registered.read("flan.xsum")


def test_tasks_can_be_sent_to_other_processes(tmp_path):
    write_rows(tmp_path, "xsum/none", [{"document": "D", "summary": "S"}])
    flan.register(str(tmp_path))
    read = seqio_bridge.seqio.TaskRegistry.get("flan.xsum").source.read
    assert list(pickle.loads(pickle.dumps(read))("train")) == list(read("train"))


def test_tfds_goes_through_the_same_fields(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    text, label = tfds.features.Text(), tfds.features.ClassLabel
    piqa = {"goal": text, "sol1": text, "sol2": text, "id": text, "label": label(num_classes=2)}
    row = {"goal": "g", "sol1": "a", "sol2": "b", "label": 1, "id": "1"}
    registered.write_tfds(tmp_path, "piqa", piqa, [row])
    trec = {"text": text, "label-coarse": label(num_classes=6), "label-fine": label(num_classes=47)}
    registered.write_tfds(tmp_path, "trec", trec, [{"text": "Who?", "label-coarse": 3, "label-fine": 0}])
    coqa = {"story": text, "questions": tfds.features.Sequence(text)}
    coqa["answers"] = tfds.features.Sequence({"input_text": text})
    row = {"story": "S", "questions": ["a?", "b?"], "answers": {"input_text": ["x", "y"]}}
    registered.write_tfds(tmp_path, "coqa", coqa, [row])
    flan_tfds.register(tfds_data_dir=str(tmp_path))
    assert len(registry.names()) == sum("tfds" in one for one in flan.definitions().values()) > 60
    found = {
        name: list(seqio_bridge.read_fields(f"flan.{name}", "train")) for name in ("piqa", "trec", "coqa")
    }
    assert [(one["uid"], one["template"]) for one in found["piqa"]] == [("1", "how"), ("1", "solve")]
    assert found["piqa"][0]["inputs"] == "Goal: g\n\nWhich way leads there?\nOPTIONS:\n- a\n- b"
    assert (found["piqa"][0]["targets"], found["piqa"][0]["candidates"]) == ("b", ["a", "b"])
    assert found["trec"][0]["targets"] == "a human being"
    assert found["coqa"][0]["references"] == ["(1) x\n(2) y"]


def export(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_export_is_parted_by_task_and_read(tmp_path):
    block = "p\nOPTIONS:\n- yes\n- no\n\nx\n\nOPTIONS:\n- may be\n- no"
    rows = [
        {"inputs": block, "targets": "no", "_task_name": "anli/r1:0.1.0", "_task_source": "Flan2021"}
        | {"_template_idx": 3, "_template_type": "zs_opt"},
        {"inputs": "q", "targets": "no", "task_name": "anli/r1:0.1.0", "template_type": "fs_noopt"},
        {"inputs": "q", "targets": "a", "task_name": "glue/mnli:2.0.0", "template_type": "zs_noopt"},
        {"inputs": "q", "targets": "a", "task_name": "../../etc", "task_source": "Else"},
    ]
    home = tmp_path / "flan2022"
    collection_2022.main([str(export(tmp_path / "all.jsonl", *rows)), "--to", str(home)])
    assert {path.name for path in home.iterdir()} == {"anli_r1", "mnli_matched", ".._.._etc"}
    collection_2022.register(str(tmp_path))
    [example] = registered.read("flan.anli_r1")["train"]
    assert (example.candidates, example.template, example.uid) == (("may be", "no"), "3", "1")
    assert registry.card("flan.anli_r1").category == "Textual Entailment"
    assert registry.card("flan.mnli_matched").metrics == ("rouge_l", "exact_match")
    with pytest.raises(SystemExit):
        collection_2022.main([str(tmp_path / "all.jsonl"), "--to", str(home)])


def test_mixed_options_make_a_generated_task(tmp_path):
    folder = tmp_path / "flan2022" / "own"
    folder.mkdir(parents=True)
    export(
        folder / "train.jsonl",
        {"inputs": "q\nOPTIONS:\n- a\n- b", "targets": "a"},
        {"inputs": "q", "targets": "c"},
    )
    collection_2022.register(str(tmp_path))
    assert [e.candidates for e in registered.read("flan.own")["train"]] == [(), ()]
    assert registry.card("flan.own").category == "Misc."


def test_the_collections_list_gives_categories(real_data):
    from etils import epath

    home = epath.Path(real_data) / "flan2022"
    assert collection_2022.category("adversarial_qa", home) == "Question Answering"
    assert collection_2022.category("stream_esnli_ii", home) == "Textual Entailment"
    for line in (home / "flan_collection_info.csv").read_text().splitlines():
        source, name, *_ = line.split(",")
        if source == "FLAN":
            assert collection_2022.category(name, home) != "Misc.", name


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"inputs": "a", "targets": " "}, r"train.jsonl:1.*'targets'.*is empty"),
        ({"inputs": 1, "targets": "b"}, r"train.jsonl:1.*'inputs'.*must be a string"),
        ({"targets": "b"}, "'inputs'"),
        ({"inputs": "a", "targets": "b", "template_type": "fs_opt"}, "holds no example"),
        ({"inputs": "a", "targets": "b", "template_type": ["x"]}, "holds no example"),
    ],
)
def test_bad_rows_of_flan_2022_are_named(tmp_path, row, said):
    (tmp_path / "flan2022" / "own").mkdir(parents=True)
    export(tmp_path / "flan2022" / "own" / "train.jsonl", row)
    collection_2022.register(str(tmp_path))
    with pytest.raises(InputError, match=said):
        registered.read("flan.own")
    with pytest.raises(SystemExit):
        collection_2022.main(
            [str(tmp_path / "flan2022" / "own" / "train.jsonl"), "--to", str(tmp_path / "to")]
        )


def test_no_task_of_flan_2022_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no task of Flan 2022.*python -m tasks.flan.collection_2022"):
        collection_2022.register(str(tmp_path))
