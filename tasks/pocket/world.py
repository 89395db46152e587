"""The small world that the embedded benchmark talks about: its words, its facts, its sentences.

Few words and fixed facts keep it learnable by a model of two layers; what differs from example to example
(who has what, where, in which colour) must be read from the text, and that is what transfers between tasks.
"""

from __future__ import annotations

from random import Random

GIRLS = ("Anna", "Clara", "Emma", "Lucy", "Mia", "Nora")
BOYS = ("Ben", "David", "Felix", "Jack", "Leo", "Tom")
PEOPLE = GIRLS + BOYS
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
TOYS = ("ball", "kite", "doll", "drum", "car", "boat", "bike", "book")
ANIMALS = (
    "dog", "cat", "horse", "cow", "pig", "duck", "fish", "frog", "bear", "mouse",
)  # fmt: skip
FOODS = ("apples", "pears", "plums", "eggs", "soup", "bread", "rice", "cheese")
PLACES = (
    "park", "school", "kitchen", "garden", "library", "station", "forest", "farm",
)  # fmt: skip
SPORTS = ("football", "tennis", "hockey", "golf", "chess")
WEATHER = ("rain", "snow", "wind", "sun", "fog")

#: A job and the place where it is done.
JOBS = {
    "teacher": "school",
    "cook": "kitchen",
    "farmer": "farm",
    "gardener": "garden",
    "librarian": "library",
    "driver": "station",
}
OPPOSITES = {
    "big": "small", "hot": "cold", "old": "new", "fast": "slow", "long": "short", "wet": "dry",
    "full": "empty", "happy": "sad", "clean": "dirty", "hard": "soft", "light": "dark", "open": "closed",
    "rich": "poor", "early": "late", "high": "low", "strong": "weak",
}  # fmt: skip
PLURALS = {
    "dog": "dogs", "cat": "cats", "horse": "horses", "cow": "cows", "pig": "pigs",
    "duck": "ducks", "fish": "fish", "frog": "frogs", "bear": "bears",
    "mouse": "mice", "ball": "balls", "kite": "kites", "doll": "dolls",
    "drum": "drums", "car": "cars", "boat": "boats", "bike": "bikes",
    "book": "books",
}  # fmt: skip
#: Base form, third person and past of the verbs of movement and of doing.
VERBS = {
    "walk": ("walks", "walked"), "run": ("runs", "ran"), "jump": ("jumps", "jumped"),
    "sing": ("sings", "sang"), "sleep": ("sleeps", "slept"), "swim": ("swims", "swam"),
    "play": ("plays", "played"), "dance": ("dances", "danced"), "wait": ("waits", "waited"),
    "work": ("works", "worked"), "read": ("reads", "read"), "paint": ("paints", "painted"),
}  # fmt: skip
GOOD = ("good", "nice", "lovely", "great", "tasty", "fine", "funny", "kind", "bright", "fresh")
BAD = ("bad", "awful", "boring", "nasty", "horrible", "ugly", "dull", "rotten", "mean", "broken")
RUDE = ("stupid", "lazy", "useless", "silly", "mad", "foolish")
POLITE = ("clever", "helpful", "brave", "gentle", "friendly", "careful")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

#: What happens and what follows from it.
CAUSES = {
    "It rained all day.": "The grass got wet.",
    "The sun was very hot.": "The ice melted.",
    "{name} ran a long way.": "{name} felt tired.",
    "{name} did not eat.": "{name} felt hungry.",
    "{name} dropped the glass.": "The glass broke.",
    "{name} read all night.": "{name} was sleepy at school.",
    "{name} lost the ball.": "{name} felt sad.",
    "{name} won the game.": "{name} felt happy.",
    "{name} watered the garden.": "The plants grew.",
    "The wind was strong.": "The kite flew high.",
}
SPANISH_COLOURS = {
    "red": "rojo", "black": "negro", "white": "blanco", "yellow": "amarillo", "green": "verde",
    "blue": "azul", "grey": "gris",
}  # fmt: skip
#: Masculine nouns only, so that articles and colours need no agreement.
SPANISH_NOUNS = {
    "dog": "perro", "cat": "gato", "horse": "caballo", "car": "coche", "train": "tren", "book": "libro",
    "boat": "barco", "bread": "pan", "hat": "sombrero", "fish": "pez",
}  # fmt: skip


def people(rng: Random, count: int) -> list[str]:
    """`count` different names."""
    return rng.sample(PEOPLE, count)


def article(word: str) -> str:
    """The word with its indefinite article: "an apple"."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def passage(rng: Random, relation: str, count: int | None = None) -> list[tuple[str, str, str]]:
    """`count` sentences of one relation as (sentence, person, thing), persons and things all different.

    Args:
      rng: where the choices come from.
      relation: "has", "in", "likes" or "job".
      count: how many sentences; two, or sometimes one or three, if not given.
    """
    things = {"has": TOYS, "in": PLACES, "likes": FOODS, "job": tuple(JOBS)}[relation]
    form = {
        "has": "{} has a {}.",
        "in": "{} is in the {}.",
        "likes": "{} likes {}.",
        "job": "{} is a {}.",
    }[relation]
    count = count or rng.choice((1, 2, 2, 3))
    pairs = zip(people(rng, count), rng.sample(things, count), strict=True)
    return [(form.format(person, thing), person, thing) for person, thing in pairs]


def text(facts: list[tuple[str, str, str]]) -> str:
    """The sentences of a `passage` in one line."""
    return " ".join(sentence for sentence, _, _ in facts)


def coloured(rng: Random, count: int = 2) -> list[tuple[str, str, str]]:
    """`count` sentences "Mia has a red ball." as (person, colour, toy), all different."""
    return list(zip(people(rng, count), rng.sample(COLOURS, count), rng.sample(TOYS, count), strict=True))


def coloured_text(facts: list[tuple[str, str, str]]) -> str:
    return " ".join(f"{person} has a {colour} {toy}." for person, colour, toy in facts)


def opinion(rng: Random) -> tuple[str, bool]:
    """A short review and whether it is positive; both of its adjectives agree."""
    positive = rng.random() < 0.5
    first, second = rng.sample(GOOD if positive else BAD, 2)
    thing, other = rng.sample(("food", "room", "film", "story", "music", "soup", "garden", "shop"), 2)
    form = rng.choice(
        (
            "The {t} was {a} and the {o} was {b}.",
            "What a {a} {t}, and the {o} was {b} too.",
            "I found the {t} {a} and {b}.",
            "It was a {a} {t} with a {b} {o}.",
        )
    )
    return form.format(t=thing, o=other, a=first, b=second), positive


def remark(rng: Random) -> tuple[str, bool]:
    """Something said to someone and whether it is rude."""
    rude = rng.random() < 0.5
    word = rng.choice(RUDE if rude else POLITE)
    name = rng.choice(PEOPLE)
    form = rng.choice(
        (
            "{n}, you are so {w}.",
            "I think that {n} is {w}.",
            "{n} is a {w} friend.",
            "What a {w} thing to do, {n}.",
            "{n} and all the others are {w}.",
        )
    )
    return form.format(n=name, w=word), rude


def topic(rng: Random) -> tuple[str, str]:
    """A sentence and what it is about: animals, food, sport or weather."""
    kind = rng.choice(("animals", "food", "sport", "weather"))
    words = {"animals": ANIMALS, "food": FOODS, "sport": SPORTS, "weather": WEATHER}[kind]
    name, word, place = rng.choice(PEOPLE), rng.choice(words), rng.choice(PLACES)
    form = {
        "animals": ("{n} saw a {w} in the {p}.", "A {w} sleeps near the {p}."),
        "food": ("{n} ate {w} in the {p}.", "{n} bought {w} near the {p}."),
        "sport": ("{n} plays {w} in the {p}.", "They watch {w} near the {p}."),
        "weather": ("There was {w} in the {p} today.", "{n} saw the {w} over the {p}."),
    }[kind]
    return rng.choice(form).format(n=name, w=word, p=place), kind
