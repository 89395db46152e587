"""The embedded tasks in CrossFit's, ExMix's and T5's formats, whose instruction is a sentence or a prefix."""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.pocket import world
from tasks.pocket.recipe import Recipe

Answers = tuple[str, list[str]]
Pair = tuple[str, str]


def antonym(rng: Random) -> Answers:
    pair = list(rng.choice(tuple(world.OPPOSITES.items())))
    rng.shuffle(pair)
    form = rng.choice(("{}", "very {}", "the {} one", "a {} thing", "so {}", "not {}", "it is {}", "too {}"))
    return form.format(pair[0]), [pair[1]]


def kind_of_word(rng: Random) -> Answers:
    kind = rng.choice(("animal", "toy", "food", "colour", "place"))
    words = {
        "animal": world.ANIMALS,
        "toy": world.TOYS,
        "food": world.FOODS,
        "colour": world.COLOURS,
        "place": world.PLACES,
    }[kind]
    return ", ".join(rng.sample(words, rng.randint(1, 3))), [kind]


def rude_comment(rng: Random) -> Answers:
    text, rude = world.remark(rng)
    return text, ["rude" if rude else "polite"]


def meal_review(rng: Random) -> Answers:
    text, positive = world.opinion(rng)
    return text, ["positive" if positive else "negative"]


def copy_name(rng: Random) -> Answers:
    """Two names are in the sentence, and both are right answers."""
    names = world.people(rng, 2)
    place, verb = rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    return f"{names[0]} and {names[1]} {verb} in the {place}.", names


def find_place(rng: Random) -> Answers:
    name, colour, toy = world.coloured(rng, 1)[0]
    place = rng.choice(world.PLACES)
    form = rng.choice(("{n} has a {c} {t} in the {p}.", "In the {p} {n} saw a {c} {t}."))
    return form.format(n=name, c=colour, t=toy, p=place), [place]


def past(rng: Random) -> Pair:
    name, place, verb = rng.choice(world.PEOPLE), rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    third, before = world.VERBS[verb]
    return f"{name} {third} in the {place}.", f"{name} {before} in the {place}."


def polite(rng: Random) -> Pair:
    toy, colour, verb = (
        rng.choice(world.TOYS),
        rng.choice(world.COLOURS),
        rng.choice(("give", "bring", "show", "pass")),
    )
    return f"{verb} me the {colour} {toy}", f"please {verb} me the {colour} {toy}"


def future(rng: Random) -> Pair:
    name, place, verb = rng.choice(world.PEOPLE), rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    return f"{name} {world.VERBS[verb][0]} in the {place}.", f"{name} will {verb} in the {place}."


def logical_form(rng: Random) -> Pair:
    name, place, verb = rng.choice(world.PEOPLE), rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    return f"{name} {world.VERBS[verb][1]} in the {place} .", f"{verb} ( agent = {name} , in = {place} )"


def boolq(rng: Random) -> dict[str, Any]:
    facts = world.passage(rng, "in", 2)
    _, person, place = rng.choice(facts)
    true = rng.random() < 0.5
    asked = place if true else next(other for _, _, other in facts if other != place)
    return {"question": f"is {person} in the {asked}", "passage": world.text(facts), "label": true}


def article(rng: Random) -> dict[str, Any]:
    name, colour, toy = world.coloured(rng, 1)[0]
    place, weather = rng.choice(world.PLACES), rng.choice(world.WEATHER)
    return {
        "article": f"{name} went to the {place}. There was {weather} all day. {name} lost a {colour} {toy}.",
        "highlights": f"{name} lost a {toy} in the {place}.",
    }


def spanish(rng: Random) -> dict[str, Any]:
    noun, colour = rng.choice(tuple(world.SPANISH_NOUNS)), rng.choice(tuple(world.SPANISH_COLOURS))
    english, there = rng.choice((("a", "un"), ("the", "el"), ("my", "mi")))
    words = f"{there} {world.SPANISH_NOUNS[noun]} {world.SPANISH_COLOURS[colour]}"
    return {"translation": {"en": f"{english} {colour} {noun}", "es": words}}


def spanish_sentence(rng: Random) -> dict[str, Any]:
    noun, colour = rng.choice(tuple(world.SPANISH_NOUNS)), rng.choice(tuple(world.SPANISH_COLOURS))
    english, there = rng.choice((("the", "el"), ("my", "mi")))
    words = f"{there} {world.SPANISH_NOUNS[noun]} es {world.SPANISH_COLOURS[colour]}"
    return {"translation": {"en": f"{english} {noun} is {colour}", "es": words}}


_ACCURACY = ("accuracy",)
_TEXT = ("rouge_l", "exact_match")
_HELD_OUT = {"train": 40, "validation": 40}


def _crossfit(
    name: str, category: str, make, instruction: str, candidates: tuple[str, ...] = (), **other
) -> Recipe:
    options = {"instruction": instruction, "candidates": candidates}
    metrics = _ACCURACY if candidates else _TEXT
    return Recipe("crossfit", name, category, "crossfit", make, metrics, options, **other)


def _exmix(name: str, category: str, form: str, make, instruction: str, **other) -> Recipe:
    return Recipe("exmix", name, category, form, make, _TEXT, {"instruction": instruction}, **other)


RECIPES = (
    _crossfit("antonym", "Word Semantics", antonym, "Write the opposite of the word.", train=200),
    _crossfit(
        "kind_of_word", "Text Categorization", kind_of_word, "What kind of words are these?",
        ("animal", "toy", "food", "colour", "place"), train=120,
    ),
    _crossfit(
        "rude_comment", "Toxic Language Detection", rude_comment, "Is it polite or rude?",
        ("polite", "rude"), train=110,
    ),
    _crossfit(
        "meal_review", "Sentiment Analysis", meal_review, "Does the text sound positive or negative?",
        ("positive", "negative"), **_HELD_OUT,
    ),
    _crossfit("find_name", "Information Extraction", copy_name, "Find a name in the sentence.", train=120),
    _crossfit(
        "find_place", "Information Extraction", find_place,
        "Find the place in the sentence.", train=120,
    ),
    _exmix("past", "Style Transfer", "parallel", past, "Write the sentence in the past.", train=110),
    _exmix("polite", "Style Transfer", "parallel", polite, "Make it polite.", train=110),
    _exmix("future", "Style Transfer", "parallel", future, "Write the sentence in the future.", **_HELD_OUT),
    _exmix(
        "logical_form", "Text to Code", "cogs", logical_form,
        "Write the logical form of the sentence.", train=110,
    ),
    Recipe("t5", "boolq", "Question Answering", "boolq", boolq, _ACCURACY, train=400),
    Recipe("t5", "news", "Summarization", "news", article, train=100),
    Recipe("t5", "en_es", "Translation", "wmt", spanish, options={"from": "en", "to": "es"}, train=150),
    Recipe(
        "t5", "en_es_sentence", "Translation", "wmt", spanish_sentence, options={"from": "en", "to": "es"},
        **_HELD_OUT,
    ),
)  # fmt: skip
