"""The embedded benchmark's plain text and dialogues, which are trained on and never evaluated.

A record of the text is a paragraph, one of the dialogues a list of turns, the first speaker's and the second's
in pairs. What they tell of fixed facts (jobs, causes, opposites) is what the tasks ask for; who has or likes
what and is where differs from record to record.
"""

from __future__ import annotations

from random import Random

from tasks.pocket import world
from tasks.pocket.recipe import Recipe


def _pronoun(name: str) -> str:
    return "She" if name in world.GIRLS else "He"


def _child(rng: Random) -> list[str]:
    """Who has what, likes what and is where."""
    name, colour, toy = world.coloured(rng, 1)[0]
    who, food, place = _pronoun(name), rng.choice(world.FOODS), rng.choice(world.PLACES)
    told = [f"{who} has a {colour} {toy}.", f"{who} likes {food}.", f"{who} is in the {place}."]
    rng.shuffle(told)
    told = [told[0].replace(who, name, 1), *told[1:]]
    return [*told, rng.choice((f"The {toy} of {name} is {colour}.", f"There is a {toy} in the {place}."))]


def _gift(rng: Random) -> list[str]:
    """A thing changes hands, and what follows."""
    giver, taker = world.people(rng, 2)
    toy, colour, place = rng.choice(world.TOYS), rng.choice(world.COLOURS), rng.choice(world.PLACES)
    where = rng.choice((f"{giver} and {taker} are in the {place}.", f"{taker} is in the {place}."))
    return [where, f"{giver} has a {colour} {toy}.", f"{giver} gives the {toy} to {taker}.",
            f"{taker} has the {colour} {toy} now."]  # fmt: skip


def _job(rng: Random) -> list[str]:
    """Who works as what, and where that is."""
    (first, job), (second, other) = zip(world.people(rng, 2), rng.sample(tuple(world.JOBS), 2), strict=True)
    return [f"{first} is a {job}.", f"{_pronoun(first)} works in the {world.JOBS[job]}.",
            f"{second} is a {other}, so {second} works in the {world.JOBS[other]}."]  # fmt: skip


def _day(rng: Random) -> list[str]:
    """The weather, what was done, and something that happened with what followed from it."""
    name, place = rng.choice(world.PEOPLE), rng.choice(world.PLACES)
    cause, effect = (part.format(name=name) for part in rng.choice(tuple(world.CAUSES.items())))
    verb, weather = rng.choice(tuple(world.VERBS)), rng.choice(world.WEATHER)
    return [rng.choice((f"There was {weather} in the {place} today.", f"{name} was in the {place} today.")),
            f"{name} {world.VERBS[verb][1]} there.", cause, effect]  # fmt: skip


def _opposites(rng: Random) -> list[str]:
    """What a thing is not, and so is."""
    pair = list(rng.choice(tuple(world.OPPOSITES.items())))
    rng.shuffle(pair)
    name, toy, other = rng.choice(world.PEOPLE), *rng.sample(world.TOYS, 2)
    return [f"{name} has two {world.PLURALS[toy]} and a {other}.", f"The {other} is {pair[0]}.",
            f"It is not {pair[1]}."]  # fmt: skip


def _review(rng: Random) -> list[str]:
    """What somebody found of something, and what they said to somebody."""
    review, positive = world.opinion(rng)
    name, other = world.people(rng, 2)
    word = rng.choice(world.POLITE if positive else world.RUDE)
    return [f"{name} said: {review}", f"I think that {other} is {word}.",
            f"{name} was {'happy' if positive else 'sad'}."]  # fmt: skip


def _sum(rng: Random) -> list[str]:
    """How many there were, came and are."""
    first, second = rng.randint(1, 5), rng.randint(1, 4)
    name, toys = rng.choice(world.PEOPLE), world.PLURALS[rng.choice(("ball", "kite", "doll", "drum", "car"))]
    return [f"{name} has {first} {toys} and gets {second} more.", f"{first} and {second} make {first + second}.",
            f"{name} has {first + second} {toys} now."]  # fmt: skip


_PARAGRAPHS = (_child, _child, _gift, _gift, _job, _day, _opposites, _review, _sum)


def paragraph(rng: Random) -> str:
    sentences = rng.choice(_PARAGRAPHS)(rng)
    if rng.random() < 0.4:
        sentences += [world.topic(rng)[0]]
    return " ".join(sentences)


def _asking(rng: Random, owner: str) -> list[str]:
    """Who has a thing, which colour it has, and where its owner is, who is absent."""
    who, place = _pronoun(owner), rng.choice(world.PLACES)
    colour, toy = rng.choice(world.COLOURS), rng.choice(world.TOYS)
    asked = [f"Who has the {toy}?", f"{owner} has the {toy}."]
    more = [
        [f"What colour is the {toy}?", f"It is {colour}."],
        [f"Where is {owner}?", f"{who} is in the {place}."],
    ]
    rng.shuffle(more)
    return [*asked, *more[0], *(more[1] if rng.random() < 0.5 else ())]


def _tastes(rng: Random, _: str) -> list[str]:
    """What each of the two likes."""
    foods = rng.sample(world.FOODS, 2)
    return ["What do you like?", f"I like {foods[0]}. What do you like?",
            f"I like {foods[1]}.", f"So you like {foods[1]} and I like {foods[0]}."]  # fmt: skip


def _places(rng: Random, _: str) -> list[str]:
    """Where one of the two is and what there is to see."""
    place, animal = rng.choice(world.PLACES), rng.choice(world.ANIMALS)
    verb = rng.choice(("sleep", "run", "jump", "play"))
    return ["Where are you?", f"I am in the {place}.", "What do you see there?",
            f"I see {world.article(animal)}. It {world.VERBS[verb][0]} in the {place}."]  # fmt: skip


def _views(rng: Random, _: str) -> list[str]:
    """What they found of something."""
    review, positive = world.opinion(rng)
    return [review, f"So you are {'happy' if positive else 'sad'}.",
            f"Yes, I am {'happy' if positive else 'sad'}.",
            f"I was there too. It was {rng.choice(world.GOOD if positive else world.BAD)}."]  # fmt: skip


def talk(rng: Random) -> list[str]:
    first, second, absent = world.people(rng, 3)
    greeting = [f"{rng.choice(('Hello', 'Hi'))}, {second}.", f"Hello, {first}."]
    turns = rng.choice((_asking, _tastes, _places, _views))(rng, absent)
    farewell = rng.choice(([], [f"Thank you, {second}.", f"See you, {first}."]))
    return [*greeting, *turns, *farewell]


def _trained_on(benchmark: str, name: str, category: str, form: str, make, train: int) -> Recipe:
    return Recipe(benchmark, name, category, form, make, ("rouge_l",), train=train, validation=0)


RECIPES = (
    _trained_on("pretraining", "stories", "Language Modeling", "plain_text", paragraph, 400),
    _trained_on("dialogue", "talk", "Dialogue Generation", "dialogue", talk, 200),
)
