"""Ids equal metaseq's: the golden encodings, and metaseq's tokenizer class as a peer."""

import json
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary

HARD = [
    "",
    " ",
    "</s>",
    "a</s>b <pad> <s><unk> <mask> <|endoftext|>",
    "😀 👩‍👩‍👧‍👦 🇩🇪",
    "one\r\ntwo\r\n\r\n three\rfour",
    "nul\0in the\0\0middle",
    "\ufeffbom \u200b\u00a0\u3000 spaces \u2028 line",
    "\x1b[31mred\x7f\x85",
    "don't DON'T we'll  ' s",
    "\U0010ffff\ufffe\ufffd",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def _peer(vocabulary):
    from tokenizers import ByteLevelBPETokenizer

    return ByteLevelBPETokenizer.from_file(*(str(path) for path in vocabulary.files))


def test_golden_encodings(real_data):
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    records = [json.loads(line) for line in (real_data / "opt_bpe" / "golden.jsonl").open(encoding="utf-8")]
    assert vocabulary.encode_batch([record["text"] for record in records]) == [
        record["ids"] for record in records
    ]
    assert [vocabulary.decode(record["ids"]) for record in records] == [
        record["decoded"] for record in records
    ]
    assert (vocabulary.size, vocabulary.padded_size) == (50_265, 50_272)


def test_hard_texts_equal_metaseqs_tokenizer(real_data):
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    peer = _peer(vocabulary)
    long_lines = ["x" * 1_000_000, "to be or not to be " * 55_000, "\0" * 100_000, "é😀" * 100_000]
    for text in HARD + long_lines:
        ids = vocabulary.encode(text)
        assert ids == peer.encode(text).ids
        assert vocabulary.decode(ids) == text
        assert not ids or min(ids) > Vocabulary.UNK


@settings(deadline=None, max_examples=200)
@given(text=st.text() | st.text(alphabet=" \n\tthe</s>an'ó\r"))
def test_any_text_equals_the_peer_and_comes_back(small, text):
    ids = small.encode(text)
    assert ids == _peer(small).encode(text).ids
    assert small.decode(ids) == text


def test_surrogates_are_joined_or_replaced(small):
    assert small.decode(small.encode("a\ud83d\ude00b")) == "a😀b"
    assert small.decode(small.encode("a\ud83db\udc00")) == "a\ufffdb\ufffd"


def test_decode_drops_special_and_padding_ids(small):
    ids = small.encode("the other")
    assert small.decode([0, *ids, 2, 1, 3, small.size, small.size + 5]) == "the other"


def test_either_file_names_pickling_and_threads(tmp_path):
    metaseq = write_vocabulary(tmp_path / "metaseq", ("gpt2-vocab.json", "gpt2-merges.txt"))
    hugging_face = write_vocabulary(tmp_path / "hf")
    assert metaseq.fingerprint == hugging_face.fingerprint
    texts, results = ["the one and the other"] * 200, []
    shared = pickle.loads(pickle.dumps(metaseq))
    threads = [threading.Thread(target=lambda: results.append(shared.encode_batch(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == hugging_face.encode_batch(texts) for result in results) and len(results) == 4


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no vocabulary here"):
        _ = Vocabulary(str(tmp_path / "nowhere")).size
    folder = tmp_path / "v"

    def damaged(name, text):
        write_vocabulary(folder)
        ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        content = text(ids) if callable(text) else text
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as caught:
            Vocabulary(str(folder)).encode("text")
        assert str(folder / name) in str(caught.value)
        return str(caught.value)

    assert "not JSON" in damaged("vocab.json", '{"<s>": 0, ')
    assert "without gaps" in damaged("vocab.json", "[1, 2]")
    assert "without gaps" in damaged("vocab.json", lambda ids: json.dumps(ids | {"<s>": 9999}))
    assert "<pad> must have id 1" in damaged(
        "vocab.json", lambda ids: json.dumps(ids | {"</s>": 1, "<pad>": 2})
    )
    assert "byte symbols" in damaged(
        "vocab.json", lambda ids: json.dumps({("zzz" if t == "!" else t): i for t, i in ids.items()})
    )
    assert ":2: a merge is two tokens" in damaged("merges.txt", "#version: 0.2\nthe\n")
    assert "have no id" in damaged("merges.txt", "q z\n")
    assert "not UTF-8" in damaged("merges.txt", b"\xff\xfe t h")
