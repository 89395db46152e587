"""MetaICL's suffix loss learns more of the very same tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import Example, TaskCard
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from tests.data.small_vocabulary import write_vocabulary

TEXT = st.text(max_size=20) | st.text(alphabet=" \n\t\x85\u2003ab.:'s1</>", max_size=15)
CARDS = [TaskCard(f"flan.{level}", "flan", "Other", level) for level in ("task", "instance")]
EXAMPLE = st.builds(
    Example, st.just("1"), TEXT.filter(bool), TEXT.filter(str.strip), instruction=st.just("Do it.")
)
FORMAT = {"separators": ("\n\n\n", "\n", " ## "), "delimiters": ("\nA:", " Answer:", "")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def _both(vocabulary, example, card, demonstrations, number, length, **settings_):
    made = []
    for suffix_loss in (False, True):
        form = PromptFormat(suffix_loss=suffix_loss, **{**FORMAT, **settings_})
        prompt = form.render(example, card, demonstrations, Draws(0, number))
        made.append((prompt, encode_prompts(vocabulary, [prompt], length)[0]))
    return made


@settings(deadline=None, max_examples=300)
@given(
    example=EXAMPLE,
    card=st.sampled_from(CARDS),
    demonstrations=st.lists(EXAMPLE, max_size=3),
    number=st.integers(0, 100),
    length=st.integers(4, 200),
    last=st.sampled_from([0.0, 1.0]),
)
def test_the_tokens_are_those_of_the_ordinary_prompt(
    small, example, card, demonstrations, number, length, last
):
    (ordinary, one), (suffix, other) = _both(
        small, example, card, demonstrations, number, length, instruction_last=last
    )
    assert np.array_equal(one.tokens, other.tokens) and one.truncated == other.truncated
    assert other.target_start <= one.target_start
    if demonstrations:
        assert suffix.provenance == {**ordinary.provenance, "suffix_loss": True}
        told = f"{suffix.source} {suffix.target}"
        assert told == f"{ordinary.source.rstrip(' ')} {ordinary.target}"
        # It begins at the answer of the first demonstration.
        assert suffix.target.startswith(demonstrations[0].target.rstrip())
    else:
        assert suffix == ordinary


def test_one_end_of_document_and_all_from_the_first_answer_on(real_data):
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    shown = [Example("2", "2 + 2?", "four"), Example("3", "3 + 3?", "six")]
    _, (_, document) = _both(
        vocabulary,
        Example("1", "1 + 1?", "two"),
        CARDS[1],
        shown,
        0,
        2048,
        separators=("\n\n\n",),
        delimiters=("\nA:",),
    )
    ids = document.tokens
    assert vocabulary.decode(ids[: document.target_start]) == "2 + 2?\nA:"
    learnt = vocabulary.decode(ids[document.target_start : -1])
    assert learnt == " four\n\n\n3 + 3?\nA: six\n\n\n1 + 1?\nA: two"
    assert (ids == Vocabulary.EOS).nonzero()[0].tolist() == [len(ids) - 1]


def test_a_blank_answer_is_learnt_as_ever():
    form = PromptFormat(suffix_loss=True)
    prompt = form.render(Example("1", "q", " "), CARDS[1], [Example("2", "p", "a")], Draws(0))
    assert prompt == PromptFormat().render(
        Example("1", "q", " "), CARDS[1], [Example("2", "p", "a")], Draws(0)
    )
