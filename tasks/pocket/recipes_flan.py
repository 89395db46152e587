"""The embedded tasks in FLAN's format: rendered rows of inputs and targets, choices as an OPTIONS block.

A record is [inputs, targets, index of the template].
"""

from __future__ import annotations

from random import Random

from tasks.pocket import world
from tasks.pocket.recipe import Recipe

Record = tuple[str, str, int]


def _options(*choices: str) -> str:
    return "OPTIONS:\n" + "\n".join(f"- {choice}" for choice in choices)


def _render(rng: Random, templates: tuple[str, ...], target: str, **fields: str) -> Record:
    index = rng.randrange(len(templates))
    return templates[index].format(**fields), target, index


def is_it_true(rng: Random) -> Record:
    facts = world.coloured(rng)
    _, colour, toy = rng.choice(facts)
    true = rng.random() < 0.5
    asked = colour if true else rng.choice([other for _, other, _ in facts if other != colour])
    return _render(
        rng,
        (
            "Story: {text}\n\nIs the {toy} {asked}?\n{options}",
            "Read this and answer: {text}\n\nIs it true that the {toy} is {asked}?\n{options}",
        ),
        "yes" if true else "no",
        text=world.coloured_text(facts), toy=toy, asked=asked, options=_options("yes", "no"),
    )  # fmt: skip


def likes_what(rng: Random) -> Record:
    facts = world.passage(rng, "likes")
    _, person, food = rng.choice(facts)
    return _render(
        rng,
        (
            "Story: {text}\n\nWhat does {person} like?",
            "Text: {text}\n\nAnswer this question: {person} likes what?",
        ),
        food, text=world.text(facts), person=person,
    )  # fmt: skip


def whose_colour(rng: Random) -> Record:
    facts = world.coloured(rng)
    person, colour, _ = rng.choice(facts)
    return _render(
        rng,
        (
            "Story: {text}\n\nWho has the {colour} toy?",
            "Text: {text}\n\nAnswer this question: the {colour} toy is whose?",
        ),
        person, text=world.coloured_text(facts), colour=colour,
    )  # fmt: skip


def mood(rng: Random) -> Record:
    text, positive = world.opinion(rng)
    return _render(
        rng,
        (
            "{text}\n\nWhat is the sentiment of this review?\n{options}",
            "Review: {text}\n\nIs this review positive or negative?\n{options}",
        ),
        "positive" if positive else "negative",
        text=text, options=_options("negative", "positive"),
    )  # fmt: skip


def second_word(rng: Random) -> Record:
    words = rng.sample(rng.choice((world.ANIMALS, world.FOODS, world.TOYS)), rng.randint(3, 4))
    return _render(
        rng,
        ("List: {words}\n\nWhat is the second word?", "Find the second word of this list: {words}"),
        words[1], words=", ".join(words),
    )  # fmt: skip


def what_about(rng: Random) -> Record:
    text, kind = world.topic(rng)
    return _render(
        rng,
        (
            "{text}\n\nWhich topic is this sentence about?\n{options}",
            "What is the topic?\n\n{text}\n{options}",
        ),
        kind, text=text, options=_options("animals", "food", "sport", "weather"),
    )  # fmt: skip


def summary(rng: Random) -> Record:
    name, colour, toy = world.coloured(rng, 1)[0]
    place = rng.choice(world.PLACES)
    extra = rng.choice(("It was a fine day.", "It was late.", "There was some rain."))
    return _render(
        rng,
        ("Article: {text}\n\nWrite a short summary.", "Summarize this text: {text}"),
        f"{name} found a {toy}.",
        text=f"{name} was in the {place}. {extra} There {name} found a {colour} {toy}.",
    )  # fmt: skip


def follows(rng: Random) -> Record:
    facts = world.coloured(rng)
    person, _, toy = facts[0]
    true = rng.random() < 0.5
    said = toy if true else facts[1][2]
    return _render(
        rng,
        (
            "Story: {text}\n\nDoes it follow that {person} has a {said}?\n{options}",
            "Premise: {text}\nHypothesis: {person} has a {said}.\n"
            "Does the premise entail the hypothesis?\n{options}",
        ),
        "yes" if true else "no",
        text=world.coloured_text(facts), person=person, said=said, options=_options("yes", "no"),
    )  # fmt: skip


def _recipe(name: str, category: str, make, metrics: tuple[str, ...], **other) -> Recipe:
    return Recipe("flan", name, category, "flan", make, metrics, **other)


_ACCURACY = ("accuracy",)
_TEXT = ("rouge_l", "exact_match")
_HELD_OUT = {"train": 40, "validation": 40}

RECIPES = (
    _recipe("is_it_true", "Question Answering", is_it_true, _ACCURACY, train=400),
    _recipe("likes_what", "Question Answering", likes_what, _TEXT, train=500),
    _recipe("whose_colour", "Question Answering", whose_colour, _TEXT, **_HELD_OUT),
    _recipe("mood", "Sentiment Analysis", mood, _ACCURACY, train=110),
    _recipe("second_word", "Program Execution", second_word, _TEXT, train=500),
    _recipe("what_about", "Text Categorization", what_about, _ACCURACY, **_HELD_OUT),
    _recipe("summary", "Summarization", summary, _TEXT, train=100),
    _recipe("follows", "Textual Entailment", follows, _ACCURACY, **_HELD_OUT),
)
