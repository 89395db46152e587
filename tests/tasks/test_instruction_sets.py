"""Collections of instructions: every genuine file, conversations, and bad files."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.errors import InputError
from tasks import files, instruction_sets
from tests.tasks.evaluation_only import empty_registries, manifest, read, splits  # noqa: F401


def write(tmp_path, path, rows):
    file = tmp_path / "instruction" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = path.endswith(".jsonl")
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))


def message(role, text, replies=(), **fields):
    return {"message_id": text, "role": role, "text": text, "replies": list(replies), **fields}


def test_every_genuine_file_is_read(real_data):
    instruction_sets.register(str(real_data))
    groups = {group["group"]: group["examples"] for group in manifest(real_data, "instruction")}
    counts = {}
    for name in registry.names():
        [split] = splits(name)
        assert split == ("test" if name.endswith("user_oriented") else "train")
        examples = read(name, split)
        assert len({example.uid for example in examples}) == len(examples)
        assert all(example.source and not example.candidates for example in examples)
        counts[name.partition(".")[2]] = len(examples)
    assert counts["alpaca"] == groups["alpaca original outputs, sample"]
    assert counts["alpaca_rewritten"] == groups["alpaca sample"]
    assert counts["dolly"] == groups["dolly sample"]
    assert counts["oasst_questions"] == groups["OpenAssistant validation prompts"]
    # Every seed task and user-oriented task has one instance.
    assert counts["self_instruct_seeds"] == groups["alpaca seeds"]
    assert (
        counts["self_instruct_seeds"] + counts["user_oriented"]
        == groups["self-instruct seeds and user-oriented instructions"]
    )
    # Conversations give an example for each answer: of trees the reply ranked first, of tool calls every turn.
    home = real_data / "instruction"
    trees = [row["prompt"] for _, row in files.json_lines(home / "oasst" / "en_100_tree.jsonl.gz")]
    assert counts["oasst"] == sum(map(answered, trees))
    calls = files.json_records(home / "toolcall" / "glaive_toolcall_en_demo.json")
    assert len(calls) == groups["tool-call dialogues (sharegpt layout)"]
    spoken = [turn["from"] for call in calls for turn in call["conversations"]]
    assert counts["glaive_toolcall"] == spoken.count("gpt") + spoken.count("function_call")


def answered(tree):
    own = tree["role"] == "prompter" and bool(tree.get("replies"))
    return own + sum(map(answered, tree.get("replies") or ()))


def test_conversations(tmp_path):
    late = message("prompter", "And?", [message("assistant", "So.")])
    tree = message(
        "prompter",
        "Hi",
        [
            message("assistant", "second", rank=1),
            message("assistant", "gone", rank=0, deleted=True),
            message("assistant", "first", [late], rank=0),
        ],
    )
    write(tmp_path, "oasst/en_100_tree.jsonl", [{"message_tree_id": "t", "prompt": tree}])
    call = [("human", "Find a cat"), ("function_call", "find()"), ("observation", "cat"), ("gpt", "Here")]
    turns = [{"from": speaker, "value": value} for speaker, value in call]
    write(tmp_path, "toolcall/own.json", [{"conversations": turns, "tools": "[find]"}])
    asked = {
        "input": "### Human: One ### Assistant: Two ### Human: Three\n? ### Assistant:",
        "output": "Four",
    }
    write(tmp_path, "oasst/oa_questions.jsonl", [asked])
    instruction_sets.register(str(tmp_path))
    found = {name: [(e.source, e.target) for e in read(name, "train")] for name in registry.names()}
    assert found == {
        "instruction.oasst": [
            ("Hi", "first"),
            ("Human: Hi\nAssistant: first\nHuman: And?\nAssistant:", "So."),
        ],
        "instruction.oasst_questions": [
            ("Human: One\nAssistant: Two\nHuman: Three\n?\nAssistant:", "Four"),
        ],
        "instruction.glaive_toolcall": [
            ("Tools: [find]\nHuman: Find a cat\nAssistant:", "find()"),
            (
                "Tools: [find]\nHuman: Find a cat\nAssistant: find()\nObservation: cat\nAssistant:",
                "Here",
            ),
        ],
    }


@pytest.mark.parametrize(
    ("path", "rows", "told"),
    [
        ("alpaca/alpaca_data.json", [{"instruction": "i", "input": "", "output": 1}], "field 'output'"),
        ("dolly/databricks-dolly-15k.jsonl", [{"instruction": "i", "response": ""}], "jsonl:1.*'context'"),
        ("oasst/oa_questions.jsonl", [{"input": "### Human: One", "output": "x"}], "jsonl:1.*'input'"),
        ("toolcall/a.json", [{"conversations": [{"from": "me", "value": ""}]}], "unknown speaker 'me'"),
    ],
)
def test_a_bad_file_is_told(tmp_path, path, rows, told):
    write(tmp_path, path, rows)
    instruction_sets.register(str(tmp_path))
    with pytest.raises(InputError, match=told):
        read(registry.names()[0], "train")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="instruction/alpaca"):
        instruction_sets.register(str(tmp_path))
