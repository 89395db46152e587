"""The embedded tasks in PromptSource's format: rows in a Hugging Face schema, templates in Jinja.

A record is a row. Templates are (name, jinja, answer choices, whether it is the original task).
"""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.pocket import world
from tasks.pocket.recipe import Recipe

Row = dict[str, Any]
_STRING = {"dtype": "string", "_type": "Value"}


def _label(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def film_review(rng: Random) -> Row:
    text, positive = world.opinion(rng)
    return {"text": text, "label": int(positive)}


def comment(rng: Random) -> Row:
    text, rude = world.remark(rng)
    return {"comment": text, "rude": int(rude)}


def reading(rng: Random) -> Row:
    facts = world.passage(rng, "job")
    _, person, job = rng.choice(facts)
    if rng.random() < 0.5:
        question, answer = f"Who is the {job}?", person
    else:
        question, answer = f"What is the job of {person}?", job
    return {"context": world.text(facts), "question": question, "answer": answer}


def liked_food(rng: Random) -> Row:
    facts = world.passage(rng, "likes", 2)
    _, person, food = rng.choice(facts)
    options = [fact[2] for fact in facts]
    rng.shuffle(options)
    return {
        "story": world.text(facts),
        "person": person,
        "choice1": options[0],
        "choice2": options[1],
        "label": options.index(food),
    }


def which_toy(rng: Random) -> Row:
    facts = world.passage(rng, "has")
    _, person, toy = rng.choice(facts)
    return {"context": world.text(facts), "person": person, "toy": toy}


def topic(rng: Random) -> Row:
    text, kind = world.topic(rng)
    return {"text": text, "label": ("animals", "food", "sport", "weather").index(kind)}


def story(rng: Random) -> Row:
    name, colour, toy = world.coloured(rng, 1)[0]
    place, verb = rng.choice(world.PLACES), rng.choice(tuple(world.VERBS))
    end = rng.choice(("{n} {v} with it.", "Then {n} {v}.", "{n} {v} all day."))
    text = f"{name} went to the {place} with a {colour} {toy}. "
    return {
        "story": text + end.format(n=name, v=world.VERBS[verb][1]),
        "title": f"{name} and the {colour} {toy}",
    }


def names_list(rng: Random) -> Row:
    names = world.people(rng, rng.randint(3, 5))
    return {"names": names, "first": names[0]}


def because(rng: Random) -> Row:
    name = rng.choice(world.PEOPLE)
    (cause, effect), other = rng.sample(tuple(world.CAUSES.items()), 2)
    question = rng.choice(("cause", "effect"))
    premise, right, wrong = (effect, cause, other[0]) if question == "cause" else (cause, effect, other[1])
    choices = [right, wrong]
    rng.shuffle(choices)
    return {
        "premise": premise.format(name=name),
        "choice1": choices[0].format(name=name),
        "choice2": choices[1].format(name=name),
        "question": question,
        "label": choices.index(right),
    }


def _recipe(name: str, category: str, make, features: Row, templates: tuple, metrics, **other) -> Recipe:
    options = {"features": features, "templates": templates}
    return Recipe("promptsource", name, category, "promptsource", make, metrics, options, **other)


_ACCURACY = ("accuracy",)
_TEXT = ("rouge_l", "exact_match")
_HELD_OUT = {"train": 40, "validation": 40}

RECIPES = (
    _recipe(
        "film_review", "Sentiment Analysis", film_review,
        {"text": _STRING, "label": _label("bad", "good")},
        (
            (
                "good_or_bad", "{{text}} Is this good or bad? ||| {{answer_choices[label]}}", "bad ||| good",
                True,
            ),
            ("like", "{{text}}\nDid the writer like it? ||| {{answer_choices[label]}}", "no ||| yes", True),
            ("write", "Write a {{answer_choices[label]}} review. ||| {{text}}", "bad ||| good", False),
        ),
        _ACCURACY, train=110,
    ),
    _recipe(
        "comment", "Toxic Language Detection", comment,
        {"comment": _STRING, "rude": _label("polite", "rude")},
        (
            ("is_rude", "Is this comment rude? {{comment}} ||| {{answer_choices[rude]}}", "no ||| yes", True),
            (
                "kind", "{{comment}}\nIs it polite or rude? ||| {{answer_choices[rude]}}", "polite ||| rude",
                True,
            ),
        ),
        _ACCURACY, **_HELD_OUT,
    ),
    _recipe(
        "reading", "Question Answering", reading,
        {"context": _STRING, "question": _STRING, "answer": _STRING},
        (
            ("context_first", "Context: {{context}}\nQuestion: {{question}} ||| {{answer}}", None, True),
            (
                "question_first", "Answer the question: {{question}}\nText: {{context}} ||| {{answer}}",
                None, True,
            ),
            ("ask", "{{context}}\nAsk about {{answer}}. ||| {{question}}", None, False),
        ),
        _TEXT, train=600,
    ),
    _recipe(
        "liked_food", "Question Answering", liked_food,
        {"story": _STRING, "person": _STRING, "choice1": _STRING, "choice2": _STRING,
         "label": _label("choice1", "choice2")},
        (
            (
                "choose", "Story: {{story}} What does {{person}} like, {{choice1}} or {{choice2}}? ||| "
                "{{answer_choices[label]}}", "{{choice1}} ||| {{choice2}}", True,
            ),
            (
                "list", "Read: {{story}}\nWhat does {{person}} like?\n- {{choice1}}\n- {{choice2}}\n||| "
                "{{answer_choices[label]}}", "{{choice1}} ||| {{choice2}}", True,
            ),
        ),
        _ACCURACY, train=300,
    ),
    _recipe(
        "which_toy", "Question Answering", which_toy,
        {"context": _STRING, "person": _STRING, "toy": _STRING},
        (
            ("what_has", "Context: {{context}} What does {{person}} have? ||| {{toy}}", None, True),
            ("toy_of", "Story: {{context}}\nWhat is the toy of {{person}}? ||| {{toy}}", None, True),
        ),
        _TEXT, **_HELD_OUT,
    ),
    _recipe(
        "topic", "Text Categorization", topic,
        {"text": _STRING, "label": _label("animals", "food", "sport", "weather")},
        (
            (
                "about", "{{text}} What is this about? ||| {{answer_choices[label]}}",
                "animals ||| food ||| sport ||| weather", True,
            ),
            (
                "section", "{{text}}\nChoose the topic: {{answer_choices | join(', ')}} ||| "
                "{{answer_choices[label]}}", "animals ||| food ||| sport ||| weather", True,
            ),
        ),
        _ACCURACY, train=110,
    ),
    _recipe(
        "story_title", "Title Generation", story, {"story": _STRING, "title": _STRING},
        (
            ("title", "Story: {{story}}\nWrite a title for the story: ||| {{title}}", None, True),
            ("name_it", "Give this story a title: {{story}} ||| {{title}}", None, True),
        ),
        _TEXT, train=100,
    ),
    _recipe(
        "first_name", "Program Execution", names_list,
        {"names": {"feature": _STRING, "_type": "Sequence"}, "first": _STRING},
        (
            (
                "who_first", "List: {{names | join(', ')}}\nWho is first in the list? ||| {{first}}",
                None, True,
            ),
            ("write_first", "Write the first name: {{names | join(', ')}} ||| {{first}}", None, True),
        ),
        _TEXT, **_HELD_OUT,
    ),
    _recipe(
        "because", "Cause Effect Classification", because,
        {"premise": _STRING, "choice1": _STRING, "choice2": _STRING, "question": _STRING,
         "label": _label("choice1", "choice2")},
        (
            (
                "because_so", "{{premise}} {% if question == 'cause' %}because{% else %}so{% endif %}\n"
                "- {{choice1}}\n- {{choice2}}\n||| {{answer_choices[label]}}",
                "{{choice1}} ||| {{choice2}}", True,
            ),
            (
                "why", "{% if question == 'cause' %}{{premise}} Why? {{choice1}} or {{choice2}} ||| "
                "{{answer_choices[label]}}{% endif %}", "{{choice1}} ||| {{choice2}}", True,
            ),
        ),
        _ACCURACY, **_HELD_OUT,
    ),
)  # fmt: skip
