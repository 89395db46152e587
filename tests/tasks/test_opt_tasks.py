"""OPT's evaluation tasks: every genuine file, the public prompts, Winograd from two sources, and bad files."""

import gzip
import json
import re

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.bench.card import TaskCard
from iml.errors import InputError
from tasks import opt_tasks
from tasks.opt_tasks.forms import FORMS
from tests.tasks.evaluation_only import empty_registries, lm_eval_tasks, manifest, read, splits  # noqa: F401

PAPER = {
    *("piqa", "arc_easy", "arc_challenge", "openbook_qa", "winograd", "winogrande", "boolq"),
    *("cb", "copa", "rte", "wic", "wsc", "multirc"),
}
STORY = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,\
RandomFifthSentenceQuiz2,AnswerRightEnding\na1,Sue ran.,She fell.,She cried.,Mum came.,She smiled.,It rained.,{}\n"


def write(tmp_path, path, content):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)))
    return file


def lines(path):
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_genuine_file_is_read(real_data):
    opt_tasks.register(str(real_data))
    assert {f"opt_tasks.{name}" for name in PAPER} < set(registry.names())
    groups = {group["group"]: group for group in manifest(real_data, "opt_tasks")}
    lines_group, xml_group = (
        groups["in-context-learning tasks (query/choices/gold)"],
        groups["Winograd schemas (WSC285 XML)"],
    )
    total, files = 0, set()
    for name, task in opt_tasks.definitions().items():
        if name == "story_cloze":
            assert "opt_tasks.story_cloze" not in registry.names()
            continue
        card = registry.card(f"opt_tasks.{name}")
        found = {split: read(card.name, split) for split in splits(card.name)}
        assert found.keys() <= {"exemplars", "validation"} and found["validation"]
        for examples in found.values():
            for example in examples:
                assert example.source == example.source.strip()
                assert bool(example.candidates) == (card.metrics == ("accuracy",))
                assert not example.candidates or example.target in example.candidates
        if name == "multirc":
            passages = {re.match(card.drawn_together, e.uid)[0] for e in found["validation"]}
            asked = {e.source.partition("\nQuestion:")[0] for e in found["validation"]}
            assert len(passages) == len(asked) < len(found["validation"])
            assert TaskCard.from_json(card.to_json()) == card
        else:
            assert "drawn_together" not in card.to_json()
        path = task["files"]["validation"][0]
        if path.startswith("opt_tasks/") and path.endswith(".jsonl"):
            raw = lines(real_data / path)
            files.add(path)
            total += len(found["validation"])
            for row, example in zip(raw, found["validation"], strict=True):
                if "gold" in row:
                    assert example.target == example.candidates[row["gold"]]
    assert len(files) == lines_group["tasks"] and total == lines_group["examples"]
    assert len(read("opt_tasks.winograd_collection", "validation")) == xml_group["examples"]
    assert splits("opt_tasks.rte") == ("validation", "exemplars") and splits("opt_tasks.wic") == (
        "validation",
    )


def test_prompts_are_those_of_lm_evaluation_harness(real_data):
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    peers = {
        "rte": ("glue/rte/default.yaml", "hf_raw/glue/rte/validation.jsonl.gz"),
        "cb": ("super_glue/cb/default.yaml", "hf_raw/super_glue/cb/validation.jsonl.gz"),
        "wic": ("super_glue/wic/default.yaml", "t5/superglue/WiC/train.jsonl"),
    }
    for name, (definition, path) in peers.items():
        text = (lm_eval_tasks() / definition).read_text().replace("!function", "")
        peer = yaml.safe_load(text)
        ask = jinja2.Template(peer["doc_to_text"])
        rows = lines(real_data / path)
        examples = list(FORMS[name](str(real_data / path)))
        assert len(examples) == len(rows)
        for row, example in zip(rows, examples, strict=True):
            assert example["source"] == ask.render(row)
            assert example["candidates"] == peer["doc_to_choice"]
            assert example["target"] == peer["doc_to_choice"][int(row["label"])]


def test_labels_by_name_and_by_number_agree(real_data):
    for name, path in (("rte", "t5/superglue/RTE/train.jsonl"), ("cb", "t5/superglue/CB/train.jsonl")):
        said = {
            "entailment": "True",
            "not_entailment": "False",
            "contradiction": "False",
            "neutral": "Neither",
        }
        rows = lines(real_data / path)
        assert [e["target"] for e in FORMS[name](str(real_data / path))] == [said[r["label"]] for r in rows]


def test_both_winograd_files_say_the_same(real_data):
    """The XML schemas, with referents put in by rule, are the ready-made sentences of the other file."""

    def sentences(examples):
        def plain(text):
            return "".join(char for char in text.lower() if char.isalnum())

        return {
            tuple(sorted(plain(example["source"] + text) for text in example["candidates"])): plain(
                example["source"] + example["target"]
            )
            for example in examples
        }

    home = real_data / "opt_tasks"
    ready = sentences(FORMS["options"](str(home / "winograd_wsc.jsonl")))
    own = sentences(FORMS["collection"](str(home / "winograd" / "WSCollection.xml")))
    assert len(ready) == 273
    assert {key: own.get(key) for key in ready} == ready


def test_the_remaining_forms(tmp_path):
    rows = {
        "hellaswag": {
            "activity_label": "Cooking [header]",
            "ctx_a": "A man cooks.",
            "ctx_b": "he",
            "endings": ["eats [title] Then", "runs"],
            "label": "1",
        },
        "wsc": {
            "text": "Ann called Sue but she, too, slept.",
            "target": {"span1_text": "Sue", "span2_text": "she", "span2_index": 4},
            "label": True,
        },
        "multirc": {
            "passage": {
                "text": "It rained.",
                "questions": [
                    {
                        "question": "What fell?",
                        "answers": [{"text": "Rain", "label": 1}, {"text": "Ann", "label": 0}],
                    }
                ],
            }
        },
        "options": {
            "context_options": [
                "Ann's mother had died, and Ann's",
                "Ann's mother had died, and Ann's mother's",
            ],
            "continuation": "place was taken.",
            "gold": 1,
        },
    }
    found = {
        name: list(FORMS[name](str(write(tmp_path, f"{name}.jsonl", [row])))) for name, row in rows.items()
    }
    assert found["hellaswag"][0] == {
        "uid": "1",
        "source": "Cooking : A man cooks. He",
        "target": "runs",
        "candidates": ["eats. Then", "runs"],
    }
    assert found["wsc"][0]["source"] == (
        "Passage: Ann called Sue but *she*, too, slept.\nQuestion: In the passage above, does the pronoun "
        '"*she*" refer to "*Sue*"?\nAnswer:'
    )
    assert [(e["uid"], e["target"]) for e in found["multirc"]] == [("1-0-0", "yes"), ("1-0-1", "no")]
    assert found["multirc"][1]["source"].endswith(
        "\nQuestion: What fell?\nAnswer: Ann\nIs the answer correct?"
    )
    assert found["options"][0]["source"] == "Ann's mother had died, and Ann's"
    assert found["options"][0]["candidates"] == ["place was taken.", "mother's place was taken."]


def test_files_are_taken_in_the_definitions_order(tmp_path):
    row = {"premise": "p", "hypothesis": "h", "label": "entailment"}
    write(tmp_path, "t5/superglue/RTE/train.jsonl", [row] * 2)
    with pytest.raises(InputError, match="none of the files"):
        opt_tasks.register(str(tmp_path))
    write(tmp_path, "superglue/RTE/val.jsonl", [row])
    write(tmp_path, "superglue/RTE/train.jsonl", [row] * 3)
    write(tmp_path, "opt_tasks/story_cloze/cloze_test_test__spring2016 - x.csv", STORY.format(2))
    opt_tasks.register(str(tmp_path))
    assert set(registry.names()) == {"opt_tasks.rte", "opt_tasks.story_cloze"}
    assert len(read("opt_tasks.rte", "validation")) == 1 and len(read("opt_tasks.rte", "exemplars")) == 3
    assert splits("opt_tasks.story_cloze") == ("test",)
    [story] = read("opt_tasks.story_cloze", "test")
    assert (story.source, story.target) == ("Sue ran. She fell. She cried. Mum came.", "It rained.")


@pytest.mark.parametrize(
    ("form", "content", "told"),
    [
        ("choices", [{"query": "q", "choices": ["a"], "gold": 1}], "x:1, field 'gold'.*1 candidates"),
        ("choices", [{"query": "q", "choices": [], "gold": 0}], "x:1, field 'choices'"),
        ("rte", [{"premise": "p", "hypothesis": "h", "label": "neutral"}], "x:1, field 'label'"),
        ("cb", [{"premise": "p", "hypothesis": "h", "label": -1}], "x:1, field 'label'"),
        ("story_cloze", STORY.format(3), "x:2, field 'AnswerRightEnding'"),
        ("story_cloze", STORY.replace("Quiz2", "Quiz9"), "x:1, field 'RandomFifthSentenceQuiz2'"),
        ("collection", "<collection><schema></collection>", "x:1.*not XML"),
        ("collection", "<collection><schema><text/></schema></collection>", "schema 1 lacks"),
    ],
)
def test_a_bad_file_is_told(tmp_path, form, content, told):
    with pytest.raises(InputError, match=told):
        list(FORMS[form](str(write(tmp_path, "x", content))))
