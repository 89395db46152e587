"""The embedded tasks in UnifiedSKG's formats and in those of the chain-of-thought sets."""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.pocket import world
from tasks.pocket.recipe import Recipe

Record = dict[str, Any]


def triples(rng: Random) -> Record:
    """DART: a set of triples and sentences that tell them."""
    name, food, place = rng.choice(world.PEOPLE), rng.choice(world.FOODS), rng.choice(world.PLACES)
    told = (
        f"{name} lives near the {place} and likes {food}.",
        f"{name} likes {food} and lives near the {place}.",
    )
    return {
        "tripleset": [[name, "LIKES", food], [name, "LIVES_NEAR", place]],
        "subtree_was_extended": False,
        "annotations": [{"source": "pocket", "text": text} for text in told],
    }


def person_card(rng: Random) -> Record:
    """E2E: a meaning representation and two references of it."""
    name, colour, toy = world.coloured(rng, 1)[0]
    place = rng.choice(world.PLACES)
    return {
        "mr": f"name[{name}], toy[{toy}], colour[{colour}], near[{place}]",
        "refs": [
            f"{name} has a {colour} {toy} near the {place}.",
            f"Near the {place}, {name} has a {colour} {toy}.",
        ],
    }


def table(rng: Random) -> Record:
    """FeTaQA: a table, a question on one cell and the answer."""
    names, toys, places = world.people(rng, 2), rng.sample(world.TOYS, 2), rng.sample(world.PLACES, 2)
    row, column = rng.randrange(2), rng.randrange(1, 3)
    rows = [["name", "toy", "place"], *([n, t, p] for n, t, p in zip(names, toys, places, strict=True))]
    asked = "What is the toy of {}?" if column == 1 else "What is the place of {}?"
    return {
        "table_page_title": "Children",
        "table_array": rows,
        "highlighted_cell_ids": [[row + 1, column]],
        "question": asked.format(names[row]),
        "answer": rows[row + 1][column],
    }


def query(rng: Random) -> Record:
    """Spider: a question and its SQL over the one database of `tables.json`."""
    column = rng.choice(("toy", "colour", "place"))
    shown = rng.choice(("name", "age"))
    values = {"toy": world.TOYS, "colour": world.COLOURS, "place": world.PLACES}[column]
    value = rng.choice(values)
    form = rng.choice(("Show the {s} where the {c} is {v}.", "What is the {s} if the {c} is {v}?"))
    return {
        "db_id": "children",
        "query": f"SELECT {shown} FROM child WHERE {column} = '{value}'",
        "question": form.format(s=shown, c=column, v=value),
    }


def sums(rng: Random) -> tuple[str, str, str]:
    """Chain-of-thought rows: question, answer, rationale."""
    name, toy = rng.choice(world.PEOPLE), rng.choice(("balls", "kites", "dolls", "drums", "cars", "boats"))
    first = rng.randint(1, 6)
    second = rng.randint(1, 9 - first)
    total = first + second
    return (
        f"{name} has {first} {toy} and gets {second} more. How many {toy} does {name} have?",
        str(total),
        f"{first} and {second} make {total}.",
    )


def differences(rng: Random) -> Record:
    """GSM8K rows: the answer carries calculator marks and the result after `####`."""
    name, food = (
        rng.choice(world.PEOPLE),
        rng.choice(("apples", "pears", "plums", "eggs")),
    )
    first = rng.randint(2, 9)
    second = rng.randint(1, first - 1)
    left = first - second
    return {
        "question": f"{name} has {first} {food} and eats {second}. How many {food} are left?",
        "answer": f"{first} less {second} is <<{first}-{second}={left}>>{left}.\n#### {left}",
    }


def more(rng: Random) -> Record:
    """AQuA rows: lettered options, the rationale and the letter of the right one."""
    names = world.people(rng, 2)
    toy = rng.choice(("balls", "kites", "dolls", "drums", "cars", "boats"))
    first, second = rng.randint(1, 5), rng.randint(1, 4)
    total = first + second
    options = sorted({total, total + rng.choice((1, 2)), max(1, total - 1)})
    letter = "ABC"[options.index(total)]
    return {
        "question": f"{names[0]} has {first} {toy} and {names[1]} has {second}. How many {toy} do they have?",
        "options": [f"{mark}){value}" for mark, value in zip("ABC", options, strict=False)],
        "rationale": f"{first} and {second} make {total}.",
        "correct": letter,
    }


def _skg(name: str, category: str, form: str, make, **other) -> Recipe:
    return Recipe("unified_skg", name, category, form, make, **other)


def _reasoning(name: str, form: str, make, **other) -> Recipe:
    return Recipe("reasoning", name, "Reasoning", form, make, **other)


_HELD_OUT = {"train": 40, "validation": 40}

RECIPES = (
    _skg("triples", "Data to Text", "dart", triples, train=100),
    _skg("person_card", "Data to Text", "e2e", person_card, **_HELD_OUT),
    _skg("table", "Question Answering", "fetaqa", table, train=500),
    _skg("query", "Text to Code", "spider", query, validation=24, train=48),
    _reasoning("sums", "cot", sums, train=200),
    _reasoning("differences", "gsm8k", differences, train=200),
    _reasoning("more", "aqua", more, **_HELD_OUT),
)
