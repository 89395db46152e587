"""Plain text and dialogues: no source, the whole text the target, and nothing of it lost."""

import gzip
import json

import hypothesis
import hypothesis.strategies as st
import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.mixing import EXTRA_SOURCES
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.errors import InputError
from tasks import dialogue, pretraining
from tests.tasks import registered


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def write(home, files):
    for file, content in files.items():
        path = home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_real_text_is_read_whole(real_data):
    pretraining.register(str(real_data))
    tasks = registered.read_all()
    known = registered.manifest(real_data, "pretrain_text")
    home = real_data / "pretrain_text"

    def documents(task):
        return {
            example.uid.split("-")[0] for split in tasks[f"pretraining.{task}"].values() for example in split
        }

    assert len(documents("c4")) == known["c4 sample"]
    assert len(documents("wiki_sentences")) == known["wikipedia sentences"]
    shakespeare = gzip.decompress((home / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    assert "".join(example.target for example in tasks["pretraining.tinyshakespeare"]["train"]) == shakespeare
    for split, file in (("validation", "valid"), ("test", "test")):
        text = gzip.decompress((home / "wikitext-2" / f"{file}.txt.gz").read_bytes()).decode()
        read = "\n".join(example.target for example in tasks["pretraining.wikitext_2"][split])
        assert read.split() == text.split()
        first = [example for example in tasks["pretraining.wikitext_2"][split] if "-" not in example.uid]
        assert len(first) == {"validation": 60, "test": 60}[split]
        assert all(example.target.startswith("= ") for example in first)
    for splits in tasks.values():
        for examples in splits.values():
            assert all(not example.source and not example.instruction for example in examples)
            assert max(len(example.target) for example in examples) <= pretraining.MAX_CHARS


def test_real_dialogues_are_read_and_counted(real_data):
    dialogue.register(str(real_data))
    tasks = registered.read_all()
    counts = {name.partition(".")[2]: sum(map(len, splits.values())) for name, splits in tasks.items()}
    known = registered.manifest(real_data, "dialogue")
    assert len(tasks) == 1 + 1 + 3 + 21
    assert counts["sgd"] == known["schema-guided dialogue"] and counts["taskmaster1"] == 1
    babi = sum(counts[f"babi_task{number}"] for number in (1, 3, 5))
    assert babi == known["bAbI dialog tasks 1, 3, 5"]
    assert sum(name.startswith("chatterbot_") for name in counts) == 21
    # What the files themselves hold.
    sgd = json.loads(gzip.decompress((real_data / "dialogue/sgd/dev/dialogues_001.json.gz").read_bytes()))
    told = ["\n".join(turn["utterance"] for turn in record["turns"]) for record in sgd]
    assert [example.target for example in tasks["dialogue.sgd"]["validation"]] == told
    first = tasks["dialogue.babi_task1"]["validation"][0].target
    assert first.startswith("good morning\nhello what can i help you with today\ncan you book a table")
    assert "<SILENCE>" not in first and "api_call french madrid two expensive" in first
    facts = "".join(example.target for example in tasks["dialogue.babi_task3"]["validation"])
    assert "R_phone" not in facts


def test_a_dialogue_is_a_target_without_source_or_delimiter(real_data):
    dialogue.register(str(real_data))
    [example] = registered.read("dialogue.taskmaster1")["train"]
    prompt = PromptFormat().render(example, registry.card("dialogue.taskmaster1"), (), Draws(0, "t", "u"))
    assert prompt.source == "" and prompt.target == example.target
    assert example.target.startswith(
        "Hi, I'm looking to book a table for Korean food.\nOk, what area are you"
    )
    assert {registry.card(name).benchmark for name in registry.names()} <= set(EXTRA_SOURCES)


WOI = {
    "d1": {
        "apprentice_persona": "I like tea",
        "dialog_history": [
            {"action": "Apprentice => Wizard", "text": "Hi!"},
            {"action": "Wizard => SearchAgent", "text": "tea"},
            {"action": "SearchAgent => Wizard", "text": ""},
            {"action": "Wizard => Apprentice", "text": "Tea is old."},
        ],
    }
}
BST = {
    "personas": [["a"], ["b"]],
    "free_turker_utterance": "Hi!",
    "guided_turker_utterance": "Hello.",
    "dialog": [[0, "How are you?"], [1, "Well."]],
}
LIGHT = (
    "text:_task_speech\\n_setting_name Hall, Castle\\n_self_persona I am a king.\\n_partner_say Hail!"
    "\tlabels:Who is there?\tlabel_candidates:a|b\n"
    "text:_self_say Who is there?\\n_partner_act get crown\\n_partner_say A friend."
    "\tlabels:Come in.\tepisode_done:True\n"
    "text:_partner_say Bye.\tlabels:Go.\tepisode_done:True\n"
)

#: The paper's sets in ParlAI's formats: files, split, the dialogues.
PARLAI = {
    "wizard_of_internet": ({"train.jsonl": lines(WOI)}, "train", ["Hi!\nTea is old."]),
    "wizard_of_wikipedia": (
        {
            "valid_random_split.json": json.dumps(
                [{"dialog": [{"speaker": "0_W", "text": "A."}, {"text": "B."}]}]
            ),
            "valid_topic_split.json": json.dumps([{"dialog": [{"text": "C."}]}]),
        },
        "validation",
        ["A.\nB.", "C."],
    ),
    "blended_skill_talk": ({"test.json": json.dumps([BST])}, "test", ["Hi!\nHello.\nHow are you?\nWell."]),
    "convai2": (
        {
            "train_none_original_no_cands.txt": "1 your persona: i ski.\n2 hi\thello\n3 ok ?\tyes\t\ta|b\n"
            "1 hey\tho\n",
            "train_none_original.txt": "1 not\tread\n",
        },
        "train",
        ["hi\nhello\nok ?\nyes", "hey\nho"],
    ),
    "multi_session_chat": (
        {
            "msc_dialogue/session_2/train.txt": lines({"dialog": [{"text": "Back."}, {"text": "Ah."}]}),
            "msc_dialogue/session_3/train.txt": lines(
                {"dialog": [{"text": "Again."}], "previous_dialogs": [{"dialog": [{"text": "Back."}]}]}
            ),
        },
        "train",
        ["Back.\nAh.", "Again."],
    ),
    "light": (
        {"0a1b/speech_train.txt": LIGHT},
        "train",
        ["Hail!\nWho is there?\nA friend.\nCome in.", "Bye.\nGo."],
    ),
    "light_wild": ({"speech_valid.txt": LIGHT.splitlines()[-1]}, "validation", ["Bye.\nGo."]),
}


@pytest.mark.parametrize("name", PARLAI)
def test_the_papers_dialogues_in_parlais_formats(name, tmp_path):
    files, split, told = PARLAI[name]
    write(tmp_path / "dialogue" / name, files)
    dialogue.register(str(tmp_path))
    assert [example.target for example in registered.read_all()[f"dialogue.{name}"][split]] == told


@hypothesis.given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 40))
def test_pieces_joined_are_the_document(document, max_chars):
    pieces = list(pretraining.pieces(document, max_chars))
    assert "".join(pieces) == document
    assert all(0 < len(piece) <= max_chars for piece in pieces) or pieces == [""]
    assert list(pretraining.pieces(document, 0)) == [document]


def test_pieces_end_at_lines_else_at_words():
    assert list(pretraining.pieces("one two\nthree four five", 12)) == ["one two\n", "three four ", "five"]
    assert list(pretraining.pieces("aaaa\nbbbbbbbbbbbb", 10)) == ["aaaa\nbbbbb", "bbbbbbb"]
    assert list(pretraining.pieces("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_own_text_needs_no_definition(tmp_path):
    write(
        tmp_path / "pretrain_text",
        {
            "my-books/a.txt": "First.\n\nStill the first.",
            "my-books/b.txt.gz": gzip.compress(b"Second."),
            "web/train.jsonl": lines({"text": "One.", "url": "u"}, {"text": " "}),
            "web/valid.jsonl": lines({"text": "abc def"}),
            "notes/README.md": "no data",
            "my-books/LICENSE.txt": "no book",
            "held-out/valid.jsonl": lines({"text": "abc"}),
        },
    )
    pretraining.register(str(tmp_path), max_chars=4)
    tasks = registered.read_all()
    assert set(tasks) == {"pretraining.my_books", "pretraining.web", "pretraining.held_out"}
    assert set(tasks["pretraining.held_out"]) == {"validation"}
    assert [example.uid for example in tasks["pretraining.web"]["validation"]] == ["1", "1-1"]
    registered.clear()
    pretraining.register(str(tmp_path), max_chars=0)
    books = registered.read("pretraining.my_books")["train"]
    assert [(book.uid, book.target) for book in books] == [
        ("a-1", "First.\n\nStill the first."),
        ("b-1", "Second."),
    ]
    with pytest.raises(InputError, match="negative"):
        pretraining.register(str(tmp_path), max_chars=-1)


def test_a_tfds_data_set_is_cut_as_files_are(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    pretraining.add_tfds("own_text:1.0.0", ("train",), max_chars=12, tfds_data_dir=str(tmp_path))
    rows = [{"text": "one two\nthree four five"}, {"text": " "}]
    registered.write_tfds(tmp_path, "own_text", {"text": tfds.features.Text()}, rows)
    examples = registered.read("pretraining.own_text")["train"]
    assert [(example.source, example.target) for example in examples] == [
        ("", "one two\n"),
        ("", "three four "),
        ("", "five"),
    ]


BAD = {
    "sgd": ("dev/dialogues_001.json", '[{"dialogue_id": "a", "turns": [1]}]', "lacks this field"),
    "taskmaster1": ("sample.json", '{"utterances": 3}', "a list"),
    "babi_task1": ("../babi_dialog/dialog-babi-task1dev.txt", "no number\n", r"dev\.txt:1.*no number"),
    "chatterbot_a": (
        "../chatterbot_corpus/english/a.yml",
        "conversations:\n- [a, {b: c}]\n",
        "conversation 1",
    ),
    "wizard_of_internet": ("train.jsonl", lines({"d": {"dialog_history": [{"text": "a"}]}}), "'action'"),
    "blended_skill_talk": ("train.json", json.dumps([{**BST, "dialog": [["a"]]}]), "record 1"),
    "light": ("speech_test.txt", "labels:a\n", r"speech_test\.txt:1.*part text"),
    "multi_session_chat": ("session_2/test.txt", lines({"dialog": []}), "holds no dialogue"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_dialogue_file_is_told_by_name(name, tmp_path):
    file, content, problem = BAD[name]
    write(tmp_path / "dialogue" / name, {"keep": ""})
    write(tmp_path / "dialogue" / name, {file: content})
    dialogue.register(str(tmp_path))
    with pytest.raises(InputError, match=problem) as caught:
        registered.read(f"dialogue.{name}")
    assert file.rpartition("/")[2] in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"a": ', b"[1, 2]", b'{"a": 1}', b'{"text": 4}'])
def test_hostile_files_raise_nothing_else(content, tmp_path):
    for name, (files, *_) in PARLAI.items():
        write(tmp_path / "dialogue" / name, dict.fromkeys(files, content))
    write(
        tmp_path / "dialogue",
        {"chatterbot_corpus/english/a.yml": content, "sgd/dev/dialogues_1.json": content},
    )
    write(tmp_path / "pretrain_text", {"c4/x.jsonl": content})
    dialogue.register(str(tmp_path))
    pretraining.register(str(tmp_path))
    assert len(registry.names()) == len(PARLAI) + 3
    for name in registry.names():
        for split in seqio_bridge.describe_source(name)[0]:
            with pytest.raises(InputError):
                list(seqio_bridge.read_fields(name, split))


def test_registration_needs_data(tmp_path):
    with pytest.raises(InputError, match="no set of dialogues"):
        dialogue.register(str(tmp_path))
    with pytest.raises(InputError, match="no text is here"):
        pretraining.register(str(tmp_path))
