"""ExMix's sets, each on a small file of its release's form; bad files, and absent ones."""

import gzip
import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.bench.card import Example
from iml.errors import InputError
from tasks import exmix
from tests.tasks import registered

_TOXIC = "id,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate\n"
_UKP = "topic\tretrievedUrl\tarchivedUrl\tsentenceHash\tsentence\tannotation\tset\n"
_ENTITY = {"id": "1", "input": "He left [START_ENT] Bonn [END_ENT].", "output": [{"answer": "Bonn"}]}
_BOOKING = {
    "userInput": {"text": "two of us at 7"},
    "context": {"requestedSlots": ["people"]},
    "labels": [
        {"slot": "people", "valueSpan": {"endIndex": 3}},
        {"slot": "time", "valueSpan": {"startIndex": 13, "endIndex": 14}},
    ],
}

#: Task -> split -> its files' texts, and the last example that comes of them: input, output.
SETS = {
    "cogs": (
        "test",
        {
            "cogs/test.tsv": "A dog ran .\trun ( dog )\tin_distribution\n",
            "cogs/gen.tsv": "A cat ran .\trun\tx\n",
        },
        ("Construct a semantic representation of the following sentence.\n\nA cat ran .", "run"),
    ),
    "shakespeare": (
        "validation",
        {
            "shakespeare/valid.modern": "You are.\n\nGo.\n",
            "shakespeare/valid.original": "Thou art.\n\nGo thee.\n",
        },
        ("How would Shakespeare write the following sentence?\n\nGo.", "Go thee."),
    ),
    "styleptb_vsr": (
        "train",
        {"StylePTB/VSR/train.tsv": "he buys it\the purchases it\n"},
        ("In this sentence, replace verbs with their synonyms.\n\nhe buys it", "he purchases it"),
    ),
    "gpt2_output": (
        "train",
        {
            "gpt-2-output-dataset/small-117M.train.jsonl": '{"id": 0, "text": "Hi hi."}\n',
            "gpt-2-output-dataset/webtext.train.jsonl": '{"id": 0, "text": "Hello.\\nYou."}\n',
        },
        ("Is the following text produced by GPT-2?\n\nHello.\nYou.", "No"),
    ),
    "funql_geo": (
        "test",
        {"unimer/geo/geo_funql_test.tsv": "what state ?\tanswer(state(all))\n"},
        ("Transform the following sentence into funql.\n\nwhat state ?", "answer(state(all))"),
    ),
    "ukp": (
        "validation",
        {
            "ukp/cloning.tsv": _UKP
            + 'cloning\tu\tu\th\t"No.\tNoArgument\ttrain\n'
            + "cloning\tu\tu\th\tYes.\tArgument_for\tval\n"
            + "cloning\tu\tu\th\tOh.\tArgument_against\ttest\n"
        },
        (
            "Does the following sentence argue for the topic, against it, or not at all?\n\nTopic: cloning\nYes.",
            "Argument for",
        ),
    ),
    "newsquizqa": (
        "validation",
        {"NewsQuizQA/data/news_quiz_qa-dev.csv": 'url,question,answer\nu,"Who, then?",Ann\n'},
        ("Who, then?", "Ann"),
    ),
    "dialoglue_banking": (
        "train",
        {
            "dialoglue/banking/train.csv": "text,category\nWhere is it?,card_arrival\n",
            "dialoglue/banking/categories.json": '["card_arrival", "top_up"]',
        },
        ("What does the customer of a bank want?\n\nWhere is it?", "card arrival"),
    ),
    "dialoglue_restaurant8k": (
        "train",
        {"dialoglue/restaurant8k/train.json": json.dumps([{"userInput": {"text": "Hi"}}, _BOOKING])},
        (
            "Which details of a reservation does the following message give?\n\nAsked for: people\ntwo of us at 7",
            "people: two; time: 7",
        ),
    ),
    "kilt_aidayago2": (
        "train",
        {"kilt/aidayago2-train-kilt.jsonl": json.dumps(_ENTITY)},
        (f"Which Wikipedia entity does the marked entity correspond to?\n\n{_ENTITY['input']}", "Bonn"),
    ),
    "kilt_wned": (
        "validation",
        {"kilt/wned-kilt.jsonl": json.dumps(_ENTITY)},
        (f"Which Wikipedia entity does the marked entity correspond to?\n\n{_ENTITY['input']}", "Bonn"),
    ),
    "wiki_toxicity": (
        "test",
        {
            "wiki_toxicity/test.csv": 'id,comment_text\na,"Well,\nthen"\nb,Not marked\nc,You fool\n',
            "wiki_toxicity/test_labels.csv": _TOXIC.replace("comment_text,", "")
            + "a,0,0,0,0,0,0\nb,-1,-1,-1,-1,-1,-1\nc,0,0,0,0,1,0\n",
        },
        ("Is the following comment toxic?\n\nYou fool", "Yes"),
    ),
}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def write(home, texts):
    for name, text in texts.items():
        path = home / "exmix" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def test_every_source_is_read(tmp_path):
    for _, texts, _ in SETS.values():
        write(tmp_path, texts)
    exmix.register(str(tmp_path))
    tasks = registered.read_all()
    assert set(tasks) == {f"exmix.{name}" for name in SETS}
    for name, (split, _, (source, target)) in SETS.items():
        last: Example = tasks[f"exmix.{name}"][split][-1]
        assert (last.source, last.target) == (source, target)
        ranked = registry.card(f"exmix.{name}").metrics == ("accuracy",)
        assert ranked == bool(last.candidates) and (not ranked or target in last.candidates), name


def test_what_is_absent_is_left_out_and_files_may_be_packed(tmp_path):
    write(tmp_path, {"cogs/train.tsv.gz": "A dog ran .\trun ( dog )\tin_distribution\n"})
    exmix.register(str(tmp_path / "exmix"))
    assert registry.names() == ("exmix.cogs",)
    assert [example.uid for example in registered.read("exmix.cogs")["train"]] == ["1"]


def test_no_set_at_all_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        exmix.register(str(tmp_path))
    assert str(tmp_path) in str(error.value) and "no set of ExMix" in str(error.value)


def test_real_intents_are_read(real_data, tmp_path):
    folder = tmp_path / "exmix" / "dialoglue"
    folder.mkdir(parents=True)
    (folder / "banking").symlink_to(real_data / "raw" / "banking77")
    exmix.register(str(tmp_path))
    splits = registered.read("exmix.dialoglue_banking")
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 800, "test": 400}
    assert len(splits["test"][0].candidates) == 77
    assert all(example.target in example.candidates for example in splits["test"])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"cogs/train.tsv": "A dog ran .\n"}, "train.tsv:1: has 1 of 2 columns"),
        ({"cogs/train.tsv": "A dog ran .\t\n"}, "train.tsv:1: has no output"),
        ({"cogs/train.tsv": "\n"}, "train.tsv: holds no example"),
        ({"shakespeare/train.modern": "a\n"}, "train.original:1: cannot be read"),
        ({"gpt2_output/webtext.train.jsonl": '{"id": 1}\n'}, "train.jsonl:1, field 'text'"),
        ({"ukp/a.tsv": f"{_UKP}a\tu\tu\th\ts\tMaybe\ttrain\n"}, "a.tsv:2, field 'annotation': 'Maybe'"),
        ({"newsquizqa/news_quiz_qa-dev.csv": "url,question\nu,Who?\n"}, "dev.csv:2, field 'answer'"),
        ({"dialoglue/hwu/val.csv": "text,category\na,b\n"}, "categories.json: cannot be read"),
        (
            {"dialoglue/hwu/val.csv": "text,category\na,b\n", "dialoglue/hwu/categories.json": '["c"]'},
            "val.csv:2, field 'category'",
        ),
        ({"dialoglue/restaurant8k/val.json": '[{"labels": []}]'}, "val.json, field 'userInput'"),
        ({"kilt/wned-kilt.jsonl": '{"input": "a", "output": [{}]}'}, "kilt.jsonl:1, field 'output'"),
        ({"wiki_toxicity/train.csv": "id,comment_text\n1,a\n"}, "train.csv:2, field 'toxic'"),
    ],
)
def test_bad_files_are_named(tmp_path, texts, said):
    write(tmp_path, texts)
    exmix.register(str(tmp_path))
    with pytest.raises(InputError) as error:
        registered.read_all()
    assert said in str(error.value)
