"""Options are listed or not, in every marker style; the answer stays right."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import Example, TaskCard
from iml.data.options import Options, OptionStyle
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.errors import InputError

CARD = TaskCard("flan.t", "flan", "Other")
LISTED = "Is the ball red?\nOPTIONS:\n- yes\n- no"
CHOICE = {"candidates": ("no", "yes"), "references": ("yes",)}
OPEN = Example("1", "Is the ball red?", "yes", **CHOICE)
WITH_LIST = Example("1", LISTED, "yes", **CHOICE)
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda text: not text.endswith(":")
)


@pytest.mark.parametrize(
    ("marker", "target", "lines", "answer"),
    [
        ("- {text}", "{text}", "- no\n- yes", "yes"),
        ("({upper}) {text}", "{letter}", "(A) no\n(B) yes", "B"),
        ("{lower}) {text}", "({letter}) {text}", "a) no\nb) yes", "(b) yes"),
        ("[{upper}] {text}", "{text}", "[A] no\n[B] yes", "yes"),
        ("{number}. {text}", "{letter}", "1. no\n2. yes", "2"),
    ],
)
def test_marker_styles(marker, target, lines, answer):
    shown = OptionStyle(marker, "Options:", target).apply(OPEN)
    assert shown.source == f"Is the ball red?\nOptions:\n{lines}"
    assert shown.target == answer == shown.references[0]
    assert shown.candidates[1] == answer
    assert OptionStyle(marker, "", target).apply(OPEN).source == f"Is the ball red?\n{lines}"


def test_a_list_that_is_there_changes_its_style_or_goes():
    style = OptionStyle("({upper}) {text}", "Choices:", "{letter}")
    again = style.apply(WITH_LIST)
    assert again.source == "Is the ball red?\nChoices:\n(A) yes\n(B) no" and again.target == "A"
    assert OptionStyle().apply(WITH_LIST).source == "Is the ball red?"
    within = Example("1", f"{LISTED}\nSay why.", "yes", **CHOICE)
    assert style.apply(within).source == "Is the ball red?\nChoices:\n(A) yes\n(B) no\nSay why."
    bare = Example("1", "Is it?\n(a) yes\n(b) no", "no", **CHOICE)
    assert style.apply(bare).source == "Is it?\nChoices:\n(A) yes\n(B) no"


def test_words_that_lead_up_to_a_list_keep_it():
    led = Example("1", "Is it?\nPossibilities:\n- yes\n- no", "no", **CHOICE)
    assert OptionStyle().apply(led) is led
    styled = OptionStyle("({upper}) {text}", "Choices:", "{letter}").apply(led)
    assert styled.source == "Is it?\nPossibilities:\n(A) yes\n(B) no"


@pytest.mark.parametrize(
    "example",
    [
        Example("1", "Is the ball red, yes or no?", "yes", **CHOICE),
        Example("1", "Is the ball red?\nAnswer:", "yes", **CHOICE),
        Example("1", "Is the ball red?", "maybe", **CHOICE),
        Example("1", "Is the ball red?", "yes"),
        Example("1", "", "yes", **CHOICE),
        Example("1", "Which?", "0", candidates=tuple(map(str, range(27)))),
    ],
)
def test_examples_that_stay_as_they_are(example):
    assert OptionStyle("({upper}) {text}", "", "{letter}").apply(example) is example


@settings(deadline=None, max_examples=150)
@given(
    candidates=st.lists(TEXT, min_size=2, max_size=8, unique=True),
    gold=st.integers(0, 7),
    counter=st.integers(0, 10_000),
)
def test_the_answer_can_be_read_off_the_list(candidates, gold, counter):
    answer = candidates[gold % len(candidates)]
    example = Example("1", "\u4e8c\u4e8c?", answer, candidates=tuple(candidates))
    style = Options(shown=1.0).draw(Draws(0, counter))
    styled = style.apply(example)
    lines = styled.source.split("\n")[-len(candidates) :]
    place = candidates.index(answer)
    assert lines[place].endswith(answer)
    if style.target == "{letter}":
        assert re.sub(r"\W", "", lines[place].split(" ")[0]) == styled.target
    else:
        assert styled.target.endswith(answer)
    # What was listed can be taken away again.
    if all(candidate == candidate.strip() for candidate in candidates) and style.target == "{text}":
        assert OptionStyle().apply(styled).source == example.source


def test_an_example_and_its_demonstrations_have_one_style():
    shown = [Example("2", LISTED.replace("ball", "kite"), "no", **CHOICE)]
    form = PromptFormat(options=Options(), delimiters=("\nA:",), separator="##")
    styles = set()
    for number in range(400):
        prompt = form.render(WITH_LIST, CARD, shown, Draws(0, number))
        first, last = prompt.source.split("##")
        demonstration, answer = first.rsplit("\nA: ", 1)
        assert demonstration.replace("kite", "ball") + "\nA:" == last
        forms = {"yes", "A", "a", "1", "(A) yes", "(a) yes", "(1) yes"}
        assert prompt.target in forms
        assert answer == prompt.target.translate(str.maketrans("Aa1", "Bb2")).replace("yes", "no")
        styles.add((prompt.provenance["options"], prompt.provenance["option_target"]))
    # Not shown, "-", and four markers in three forms.
    assert len(styles) == 1 + 1 + 4 * 3


def test_share_of_prompts_that_list_options():
    form = PromptFormat(options=Options(shown=0.3))
    drawn = [form.render(WITH_LIST, CARD, [], Draws(5, i)).provenance["options"] != "" for i in range(4000)]
    assert abs(sum(drawn) / 4000 - 0.3) < 0.03


@pytest.mark.parametrize(
    "setting",
    [
        {"shown": 1.5},
        {"markers": ("({upper})",)},
        {"markers": ("{Upper} {text}",)},
        {"targets": ("{upper}",)},
        {"targets": "{text}"},
        {"headings": ()},
    ],
)
def test_wrong_settings_are_named(setting):
    with pytest.raises(InputError, match=f"Options.{next(iter(setting))}"):
        Options(**setting)
