"""Prompts follow section 2.4, footnote 5 and Appendix C of the paper."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import Example, TaskCard
from iml.data.chain_of_thought import ChainOfThought
from iml.data.inversion import Inversion
from iml.data.options import Options
from iml.data.prompts import DELIMITERS, PromptFormat, find_demonstrations, render_request
from iml.data.random import Draws
from iml.errors import InputError
from tests.stores import make_store

BY_TASK = TaskCard("super_natural_instructions.t", "super_natural_instructions", "Other", "task")
BY_INSTANCE = TaskCard("promptsource.t", "promptsource", "Other", "instance")


def test_task_level_prompts_take_every_form_of_the_appendix():
    example = Example("1", "Is it 3?", "No", instruction="Answer the question.")
    sources = {PromptFormat().render(example, BY_TASK, [], Draws(0, i)).source for i in range(2000)}
    assert sources == {
        f"{definition}Answer the question.\n{prefix}Is it 3?{delimiter}"
        for definition, prefix, delimiter in itertools.product(
            ("", "Instructions: ", "Task: "), ("", "Input: "), DELIMITERS
        )
    }


def test_instance_level_prompts_get_a_delimiter_only():
    example = Example("1", "Tell me: is it 3?", "No")
    sources = {PromptFormat().render(example, BY_INSTANCE, [], Draws(0, i)).source for i in range(500)}
    assert sources == {f"Tell me: is it 3?{delimiter}" for delimiter in DELIMITERS}
    assert len(DELIMITERS) == 8 and DELIMITERS[-1] == "\noutput:"


@pytest.mark.parametrize("source", ["Some abstract\nTitle:", "Some abstract\nTitle: "])
def test_no_delimiter_after_a_colon(source):
    prompt = PromptFormat().render(Example("1", source, "A title"), BY_INSTANCE, [], Draws(0))
    assert prompt.source == source and prompt.provenance["delimiter"] == ""


def test_plain_text_has_no_source():
    shown = Example("2", "q", "a")
    prompt = PromptFormat().render(Example("1", "", "Once upon a time"), BY_INSTANCE, [shown], Draws(0))
    assert (prompt.source, prompt.target) == ("", "Once upon a time")
    assert prompt.provenance["demonstrations"] == []


def test_demonstrations_stand_after_the_task_instruction():
    form = PromptFormat(delimiters=("\nA:",), definition_prefixes=("Task: ",), input_prefixes=("Input: ",))
    shown = [Example("2", "q2", "a2 ", instruction="Do."), Example("3", "Title:", "a3", instruction="Do.")]
    prompt = form.render(Example("1", "q1", "a1", instruction="Do."), BY_TASK, shown, Draws(0))
    assert prompt.source == ("Task: Do.\nInput: q2\nA: a2\n\n\nInput: Title: a3\n\n\nInput: q1\nA:")
    assert prompt.provenance == {
        "task": BY_TASK.name,
        "uid": "1",
        "template": "",
        "delimiter": "\nA:",
        "definition_prefix": "Task: ",
        "input_prefix": "Input: ",
        "shots": 2,
        "demonstrations": ["2", "3"],
    }


def test_demonstrations_stand_before_the_instance():
    form = PromptFormat(delimiters=(" A:",), separator="##")
    prompt = form.render(Example("1", "q1", "a1"), BY_INSTANCE, [Example("2", "q2", "a2")], Draws(0))
    assert prompt.source == "q2 A: a2##q1 A:"


def test_an_instruction_without_an_input_is_kept():
    form = PromptFormat(delimiters=(" A:",), definition_prefixes=("",))
    prompt = form.render(Example("1", "", "a poem", instruction="Write a poem."), BY_TASK, [], Draws(0))
    assert prompt.source == "Write a poem. A:"


def test_reference_sampling():
    example = Example("1", "q", "a", references=("a", "b", "c"))
    targets = [
        {
            PromptFormat(sample_reference=flag).render(example, BY_TASK, [], Draws(0, i)).target
            for i in range(50)
        }
        for flag in (False, True)
    ]
    assert targets == [{"a"}, {"a", "b", "c"}]


def test_shots_follow_their_distribution():
    form = PromptFormat(shots_distribution=(0.7, 0.0, 0.3))
    drawn = [form.draw_shots(Draws(0, i)) for i in range(4000)]
    assert set(drawn) == {0, 2} and abs(drawn.count(2) / 4000 - 0.3) < 0.03
    assert PromptFormat(shots=3).draw_shots(Draws(0)) == 3


def test_separators_are_drawn_for_each_prompt():
    form = PromptFormat(delimiters=(" A:",), separators=("##", "\n--\n"))
    shown = [Example("2", "q2", "a2"), Example("3", "q3", "a3")]
    prompts = [form.render(Example("1", "q1", "a1"), BY_INSTANCE, shown, Draws(0, i)) for i in range(50)]
    assert {prompt.source for prompt in prompts} == {
        f"q2 A: a2{separator}q3 A: a3{separator}q1 A:" for separator in ("##", "\n--\n")
    }
    assert all(prompt.provenance["separator"] in prompt.source for prompt in prompts)


def test_the_instruction_stands_after_the_demonstrations_in_its_share():
    form = PromptFormat(
        delimiters=(" A:",),
        definition_prefixes=("Task: ",),
        input_prefixes=("Input: ",),
        separator="##",
        instruction_last=0.25,
    )
    example, shown = Example("1", "q1", "a1", instruction="Do."), Example("2", "q2", "a2", instruction="Do.")
    prompts = [form.render(example, BY_TASK, [shown], Draws(0, i)) for i in range(4000)]
    last = [prompt for prompt in prompts if "instruction_last" in prompt.provenance]
    assert abs(len(last) / 4000 - 0.25) < 0.03
    assert {prompt.source for prompt in last} == {"Input: q2 A: a2##Task: Do.\nInput: q1 A:"}
    others = {prompt.source for prompt in prompts} - {last[0].source}
    assert others == {"Task: Do.\nInput: q2 A: a2##Input: q1 A:"}
    zero_shot = form.render(example, BY_TASK, [], Draws(0)).source
    assert zero_shot == "Task: Do.\nInput: q1 A:"


@settings(deadline=None, max_examples=60)
@given(number=st.integers(0, 10_000), seed=st.integers(0, 100))
def test_prompts_are_functions_of_the_draw(number, seed):
    form = PromptFormat(
        separators=("##", "\n"),
        suffix_loss=True,
        instruction_last=0.5,
        options=Options(),
        chain_of_thought=ChainOfThought(0.5, varied=True),
        inversion=Inversion(),
    )
    rows = [
        Example("1", "q1", "no", candidates=("yes", "no"), instruction="Do."),
        Example("2", "q2", "So. The answer is 2", instruction="Do.", rationale="So."),
    ]
    card = TaskCard("reasoning.t", "reasoning", "Other", "task")
    for example, shown in (rows, reversed(rows)):
        made = [form.render(example, card, [shown], Draws(seed, number)) for _ in range(2)]
        assert made[0] == made[1]
        json.dumps(made[0].provenance)


def test_evaluation_asks_for_what_is_scored(store):
    """What changes a task or the form of its answers is for training alone."""
    form = PromptFormat(
        suffix_loss=True,
        options=Options(shown=1.0),
        chain_of_thought=ChainOfThought(0.0),
        inversion=Inversion(rate=100.0, exclude=()),
    )
    for row in range(9):
        prompt = render_request(store, "reasoning.asked", "test", row, form, 2, seed=0)
        example = store.read("reasoning.asked", "test", row)
        assert prompt.target == example.target
        assert example.source in prompt.source
        assert prompt.provenance["shots"] == 2 and prompt.provenance["options"]
        assert not {"suffix_loss", "inversion", "chain_of_thought"} & prompt.provenance.keys()


@pytest.mark.parametrize(
    "settings_",
    [
        {"delimiters": "\nA:"},
        {"delimiters": ()},
        {"shots": -1},
        {"separators": "\n"},
        {"instruction_last": 1.1},
        {"shots_distribution": (0.5, 0.4)},
        {"shots_distribution": (1.5, -0.5)},
    ],
)
def test_wrong_formats_are_named(settings_):
    with pytest.raises(InputError, match=f"PromptFormat.{next(iter(settings_))}"):
        PromptFormat(**settings_)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rendered = [
        {"uid": f"i{i}", "template": template, "source": f"{template} {i}", "target": str(i)}
        for i in range(12)
        for template in ("x", "y", "z")
    ]
    return make_store(
        tmp_path_factory.mktemp("store"),
        {
            "promptsource.many": {
                "train": rendered,
                "test": [{**row, "uid": f"t{row['uid']}"} for row in rendered],
            },
            "reasoning.asked": {
                "card": {"instruction_level": "task"},
                "test": [
                    {
                        "source": f"Is {i} odd?",
                        "target": "no",
                        "candidates": ["yes", "no"],
                        "rationale": "So.",
                        "instruction": "Answer.",
                    }
                    for i in range(9)
                ],
            },
            "promptsource.few": {"test": rendered[:9]},
            "promptsource.suffixed": {
                "test": [{**row, "uid": f"{row['uid']}/{row['template']}"} for row in rendered[:9]]
            },
        },
    )


@settings(deadline=None, max_examples=100)
@given(row=st.integers(0, 35), shots=st.integers(0, 14), counter=st.integers(0, 100))
def test_demonstrations_are_never_the_example_and_prefer_its_template(store, row, shots, counter):
    example = store.read("promptsource.many", "train", row)
    shown = find_demonstrations(store, "promptsource.many", "train", example, shots, Draws(0, counter))
    uids = [demonstration.uid for demonstration in shown]
    assert len(uids) == len(set(uids)) == min(shots, 11)
    assert example.uid not in uids
    assert {demonstration.template for demonstration in shown} <= {example.template}


@pytest.mark.parametrize("task", ["promptsource.few", "promptsource.suffixed"])
def test_requests_use_all_there_are_and_say_how_many(store, task):
    for row in range(9):
        example = store.read(task, "test", row)
        prompt = render_request(store, task, "test", row, PromptFormat(), 5, seed=0)
        shown = prompt.provenance["demonstrations"]
        assert prompt.provenance["shots"] == len(shown) == 2
        assert example.uid.split("/")[0] not in {uid.split("/")[0] for uid in shown}


def test_requests_are_deterministic_and_take_demonstrations_from_train(store):
    first = [
        render_request(store, "promptsource.many", "test", row, PromptFormat(), 3, 0) for row in range(36)
    ]
    again = [
        render_request(store, "promptsource.many", "test", row, PromptFormat(), 3, 0) for row in range(36)
    ]
    other = [
        render_request(store, "promptsource.many", "test", row, PromptFormat(), 3, 1) for row in range(36)
    ]
    assert first == again != other
    assert all(uid.startswith("i") for prompt in first for uid in prompt.provenance["demonstrations"])
    zero = render_request(store, "promptsource.many", "test", 0, PromptFormat(), 0, 0)
    assert first[0].source.endswith(zero.source)
