"""Documents follow metaseq's fine-tuning task: encoded as one text, the source masked, the head cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from tests.data.small_vocabulary import write_vocabulary

TEXT = st.text(max_size=40) | st.text(alphabet=" \n\t\r\x0b\x1c\x85\u00a0\u2003ab.'s1</>", max_size=25)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def _by_the_rule(vocabulary, source, target, length):
    """The rule word for word; metaseq encodes the source twice."""
    source = source.rstrip(" ")
    ids = [*vocabulary.encode(source + " " + target.rstrip()), Vocabulary.EOS]
    masked = len(vocabulary.encode(source))
    labels = [None] * masked + ids[masked:]
    return (ids[-length - 1 :], labels[-length - 1 :])


def _labels(document):
    start = document.target_start
    return [None] * start + document.tokens[start:].tolist()


@settings(deadline=None, max_examples=400)
@given(
    triples=st.lists(st.tuples(TEXT, TEXT, st.integers(0, 30)), min_size=1, max_size=4),
    length=st.integers(1, 40),
)
def test_documents_equal_the_rule(small, triples, length):
    prompts = [Prompt(source, target, {}, min(head, len(source))) for source, target, head in triples]
    documents = encode_prompts(small, prompts, length)
    for document, (source, target, _) in zip(documents, triples, strict=True):
        ids, labels = _by_the_rule(small, source, target, length)
        assert (document.tokens.tolist(), _labels(document)) == (ids, labels)
        assert document.tokens.dtype == np.int32
        assert 1 <= document.positions <= length


def test_the_rule_with_opts_own_bpe(real_data):
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    pairs = [
        ("Is it? Answer:", "No\n"),
        ("Is it?\n\nAnswer: ", " two  words"),
        ("ends with a line\n", "x"),
        ("", "plain text"),
        ("a literal </s>\nA:", "</s>"),
        ("it", "'s here"),
    ]
    documents = encode_prompts(vocabulary, [Prompt(*pair, {}) for pair in pairs], 2048)
    for document, pair in zip(documents, pairs, strict=True):
        assert (document.tokens.tolist(), _labels(document)) == _by_the_rule(vocabulary, *pair, 2048)
        assert document.tokens.tolist().count(Vocabulary.EOS) == 1
    assert vocabulary.decode(documents[0].tokens) == "Is it? Answer: No"
    assert documents[3].target_start == 0 and vocabulary.decode(documents[3].tokens) == " plain text"


def test_the_head_of_the_whole_is_cut(small):
    [document] = encode_prompts(small, [Prompt("0123456789", "abc", {})], 6)
    assert small.decode(document.tokens) == "789 abc" and document.truncated == 7
    assert document.target_start == 3 and document.tokens[-1] == Vocabulary.EOS
    [document] = encode_prompts(small, [Prompt("0123456789", "defgh", {})], 3)
    assert small.decode(document.tokens) == "fgh" and document.target_start == 0
