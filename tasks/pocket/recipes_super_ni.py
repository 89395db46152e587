"""The embedded tasks in Super-NaturalInstructions' format; a record is [input, [reference, ...]]."""

from __future__ import annotations

import functools
from random import Random

from tasks.pocket import world
from tasks.pocket.recipe import Recipe

Record = tuple[str, list[str]]


def _asked(rng: Random, relation: str, question: str, answer: int) -> Record:
    """A passage of some facts and a question on one; `answer` is 1 for the person, 2 for the thing."""
    facts = world.passage(rng, relation)
    fact = rng.choice(facts)
    question = question.format(name=fact[1], thing=fact[2])
    return f"Passage: {world.text(facts)} Question: {question}", [fact[answer]]


def what_colour(rng: Random) -> Record:
    facts = world.coloured(rng)
    _, colour, toy = rng.choice(facts)
    return f"Passage: {world.coloured_text(facts)} Question: What colour is the {toy}?", [colour]


def _words(rng: Random, least: int = 2, most: int = 5) -> list[str]:
    kind = rng.choice((world.ANIMALS, world.FOODS, world.TOYS, world.COLOURS))
    return rng.sample(kind, rng.randint(least, most))


def first_item(rng: Random) -> Record:
    words = _words(rng)
    return f"List: {', '.join(words)}", [words[0]]


def last_item(rng: Random) -> Record:
    words = _words(rng)
    return f"List: {', '.join(words)}", [words[-1]]


def copy_list(rng: Random) -> Record:
    words = _words(rng, 2, 6)
    return f"List: {', '.join(words)}", [", ".join(words)]


def count_items(rng: Random) -> Record:
    words = _words(rng, 1, 5)
    return f"List: {', '.join(words)}", [world.NUMBERS[len(words)]]


def last_place(rng: Random) -> Record:
    places = rng.sample(world.PLACES, rng.randint(3, 4))
    return f"List: {', '.join(places)}", [places[-1]]


def review_sentiment(rng: Random) -> Record:
    review, positive = world.opinion(rng)
    return review, ["Positive" if positive else "Negative"]


def rude_remark(rng: Random) -> Record:
    remark, rude = world.remark(rng)
    return remark, ["Yes" if rude else "No"]


def describe(rng: Random) -> Record:
    name, colour, toy = world.coloured(rng, 1)[0]
    place = rng.choice(world.PLACES)
    return (
        f"name: {name}, toy: {toy}, colour: {colour}, place: {place}",
        [
            f"{name} has a {colour} {toy} in the {place}.",
            f"In the {place}, {name} has a {colour} {toy}.",
        ],
    )


def missing_word(rng: Random) -> Record:
    name, job = rng.choice(world.PEOPLE), rng.choice(tuple(world.JOBS))
    form = rng.choice(("{n} is a {j}, so {n} works in the _.", "The {j} {n} is at work in the _."))
    return form.format(n=name, j=job), [world.JOBS[job]]


def entails(rng: Random) -> Record:
    facts = world.passage(rng, rng.choice(("has", "in", "likes")), 2)
    (first, one, _), (second, other, _) = facts
    if rng.random() < 0.5:
        return f"Passage: {world.text(facts)} Hypothesis: {rng.choice((first, second))}", ["Yes"]
    swapped = rng.choice((second.replace(other, one), first.replace(one, other)))
    return f"Passage: {world.text(facts)} Hypothesis: {swapped}", ["No"]


def who_is_meant(rng: Random) -> Record:
    girl, boy, toy = rng.choice(world.GIRLS), rng.choice(world.BOYS), rng.choice(world.TOYS)
    names = [girl, boy]
    rng.shuffle(names)
    answer = rng.choice(names)
    pronoun = "she" if answer == girl else "he"
    story = f"{names[0]} gave {names[1]} a {toy} and {pronoun} was happy."
    return f"Passage: {story} Question: Who was happy?", [answer]


def cause_or_effect(rng: Random) -> Record:
    name = rng.choice(world.PEOPLE)
    cause, effect = (part.format(name=name) for part in rng.choice(tuple(world.CAUSES.items())))
    if rng.random() < 0.5:
        return f"First: {cause} Second: {effect} Is the second sentence the cause or the effect?", ["effect"]
    return f"First: {effect} Second: {cause} Is the second sentence the cause or the effect?", ["cause"]


def analogy(rng: Random) -> Record:
    pairs = rng.choice((world.OPPOSITES, world.PLURALS))
    (first, second), (third, fourth) = rng.sample(tuple(pairs.items()), 2)
    return f"Analogy: {first} is to {second} as {third} is to", [fourth]


def verb_agreement(rng: Random) -> Record:
    name, place, verb = rng.choice(world.PEOPLE), rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    third = world.VERBS[verb][0]
    wrong, right = rng.choice(((verb, third), (f"is {third}", third)))
    return (
        f"Sentence: {name} {wrong} in the {place} today.",
        [f"{name} {right} in the {place} today.", f"Today {name} {right} in the {place}."],
    )


def _recipe(name: str, category: str, make, definition: str, **other) -> Recipe:
    return Recipe(
        "super_natural_instructions",
        name,
        category,
        "super_ni",
        make,
        options={"definition": definition},
        **other,
    )


_HELD_OUT = {"train": 40, "validation": 40}
_QA = "Question Answering"

RECIPES = (
    _recipe(
        "who_has", _QA, functools.partial(_asked, relation="has", question="Who has the {thing}?", answer=1),
        "Read the passage and answer the question with a name.", train=600,
    ),
    _recipe(
        "where_is", _QA, functools.partial(_asked, relation="in", question="Where is {name}?", answer=2),
        "Read the passage and answer the question with a place.", train=600,
    ),
    _recipe(
        "who_likes", _QA,
        functools.partial(_asked, relation="likes", question="Who likes {thing}?", answer=1),
        "You are given a passage and a question. Answer with one name from the passage.", train=600,
    ),
    _recipe(
        "what_colour", _QA, what_colour,
        "Read the passage and answer the question with a colour.", train=600,
    ),
    _recipe(
        "who_is_in", _QA,
        functools.partial(_asked, relation="in", question="Who is in the {thing}?", answer=1),
        "You are given a passage and a question. Answer the question with a name.", **_HELD_OUT,
    ),
    _recipe("first_item", "Program Execution", first_item, "Write the first word of the list.", train=500),
    _recipe("last_item", "Program Execution", last_item, "Write the last word of the list.", train=500),
    _recipe("copy_list", "Program Execution", copy_list, "Write the list again.", train=400),
    _recipe("count_items", "Program Execution", count_items, "Count the words of the list.", train=300),
    _recipe(
        "last_place", "Program Execution", last_place, "Write the last place of the list.",
        **_HELD_OUT,
    ),
    _recipe(
        "review_sentiment", "Sentiment Analysis", review_sentiment,
        "Is the review positive or negative? Answer with Positive or Negative.", train=110,
    ),
    _recipe(
        "rude_remark", "Toxic Language Detection", rude_remark,
        "Is the remark rude? Answer with Yes or No.", train=110,
    ),
    _recipe(
        "describe", "Data to Text", describe,
        "Write a sentence that tells all of the given facts.", train=100,
    ),
    _recipe(
        "missing_word", "Fill in The Blank", missing_word,
        "Write the word that fills the blank.", train=100,
    ),
    _recipe(
        "entails", "Textual Entailment", entails,
        "Does the hypothesis follow from the passage? Answer with Yes or No.", **_HELD_OUT,
    ),
    _recipe(
        "who_is_meant", "Coreference Resolution", who_is_meant,
        "Answer the question with the name that the pronoun stands for.", **_HELD_OUT,
    ),
    _recipe(
        "cause_or_effect", "Cause Effect Classification", cause_or_effect,
        "Answer the question with cause or effect.", **_HELD_OUT,
    ),
    _recipe("analogy", "Word Analogy", analogy, "Finish the analogy with one word.", **_HELD_OUT),
    _recipe(
        "verb_agreement", "Grammar Error Correction", verb_agreement,
        "Correct the grammar of the sentence.", **_HELD_OUT,
    ),
)  # fmt: skip
