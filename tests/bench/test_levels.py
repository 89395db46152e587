"""Levels and categories: definitions that hold for every task there is, and errors that name file and field."""

import fnmatch
import json
import pathlib

import pytest

import tasks
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category, categories
from iml.bench.levels import LEVELS, SplitScheme, load_split_scheme, split_schemes
from iml.errors import InputError

TASKS = pathlib.Path(tasks.__file__).parent


def card(name, category="Question Answering"):
    return TaskCard(name, name.partition(".")[0], category)


def test_every_scheme_of_the_package_names_known_categories_and_levels():
    assert {"opt_iml", "opt_iml_max", "super_ni_official", "pocket"} <= set(split_schemes())
    for name in split_schemes():
        scheme = load_split_scheme(name)
        assert scheme.name == name
        assert {*scheme.fully_held_out_categories, *scheme.levels_by_category} <= set(categories())
        assert set(scheme.levels_by_task.values()) <= set(LEVELS)


def test_opt_iml_holds_out_the_papers_categories():
    scheme = load_split_scheme("opt_iml")
    held_out = {
        "Stereotype Detection",
        "Word Analogy",
        "Cause Effect Classification",
        "Grammar Error Correction",
        "Textual Entailment",
        "Coreference Resolution",
        "Dialogue Act Recognition",
    }
    assert set(scheme.fully_held_out_categories) == held_out
    for category in held_out:
        assert scheme.level(card("super_natural_instructions.task9999_new", category)) == "fully_held_out"
    assert scheme.level(card("super_natural_instructions.task9999_new")) == "supervised"
    assert scheme.level(card("promptsource.super_glue_wic", "Misc.")) == "fully_held_out"
    assert scheme.level(card("promptsource.super_glue_boolq")) == "partially_held_out"
    assert scheme.level(card("promptsource.hellaswag", "Text Completion")) == "partially_held_out"
    # A pattern that would bring it back does not reach a fully held-out category.
    assert scheme.level(card("promptsource.super_glue_boolq", "Textual Entailment")) == "fully_held_out"


def test_the_first_that_speaks_decides():
    scheme = SplitScheme.from_json(
        {
            "name": "own",
            "fully_held_out_categories": ["Word Analogy"],
            "levels_by_task": {
                "a.two": "supervised",
                "a.t*": "partially_held_out",
                "a.*": "fully_held_out",
            },
            "levels_by_category": {"Translation": "partially_held_out"},
        }
    )
    assert scheme.level(card("a.two", "Word Analogy")) == "supervised"
    assert scheme.level(card("a.three", "Word Analogy")) == "fully_held_out"
    assert scheme.level(card("a.three")) == "partially_held_out"
    assert scheme.level(card("a.one", "Translation")) == "fully_held_out"
    assert scheme.level(card("b.one", "Translation")) == "partially_held_out"
    assert scheme.level(card("b.one")) == "supervised"


@pytest.mark.parametrize(
    ("text", "line", "field", "problem"),
    [
        ('{"name": "own",\n "levels_by_task": {', 2, None, "not JSON"),
        ("[]", None, None, "must be a JSON object"),
        ("{}", None, "name", "needs a name"),
        ('{"name": "own", "level": {}}', None, "level", "unknown field.*levels_by_task"),
        (
            '{"name": "own", "levels_by_task": {"a": "heldout"}}',
            None,
            "levels_by_task.a",
            "'heldout'.*supervised",
        ),
        ('{"name": "own", "levels_by_task": {"a": []}}', None, "levels_by_task.a", "no such level"),
        ('{"name": "own", "levels_by_category": ["a"]}', None, "levels_by_category", "must map"),
        ('{"name": "own", "fully_held_out_categories": "a"}', None, "fully_held_out_categories", "list"),
    ],
)
def test_a_bad_scheme_names_file_and_field(tmp_path, text, line, field, problem):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        load_split_scheme(str(path))
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), line, field)


def test_a_scheme_that_is_not_there():
    with pytest.raises(InputError, match=r"no split scheme 'opt_im'.*opt_iml_max"):
        load_split_scheme("opt_im")
    with pytest.raises(InputError, match=r"nowhere\.json.*No such file"):
        load_split_scheme("nowhere.json")


def test_the_definitions_of_the_tasks_use_the_taxonomy():
    defined = json.loads((TASKS / "definitions" / "promptsource_categories.json").read_text())["categories"]
    assert set(defined.values()) <= set(categories())
    catalogue = json.loads((TASKS / "pocket" / "data" / "catalogue.json").read_text())
    assert {entry["card"]["category"] for entry in catalogue} <= set(categories())


def test_a_category_is_found_under_the_names_that_families_use():
    assert canonical_category("super_natural_instructions", " textual_entailment ") == "Textual Entailment"
    with pytest.raises(InputError, match=r"unknown category 'Basket Weaving'.*categories\.json"):
        canonical_category("flan", "Basket Weaving")


def test_the_taxonomy_and_the_schemes_fit_the_real_files(real_data):
    folder = real_data / "super_natural_instructions"
    records = {path.stem: json.loads(path.read_bytes()) for path in (folder / "tasks").glob("*.json")}
    named = {name: record["Categories"][0] for name, record in records.items()}
    every = {category for record in records.values() for category in record["Categories"]}
    assert len(named) > 1400 and len(every) >= 75
    assert all(canonical_category("super_natural_instructions", name) in categories() for name in every)

    scheme, prefix = load_split_scheme("opt_iml"), "super_natural_instructions."
    lists = (folder / "splits" / "default").glob("*.txt")  # they name tasks whose files are absent, too
    lists = [*lists, folder / "not_available.txt"]
    known = {*named, *(name for file in lists for name in file.read_text().split())}
    for pattern in scheme.levels_by_task:
        if pattern.startswith(prefix):
            assert any(fnmatch.fnmatchcase(prefix + name, pattern) for name in known), pattern

    # The official scheme holds out at least the listed test tasks: whole categories of them.
    official = load_split_scheme("super_ni_official")
    listed = set((folder / "splits" / "default" / "test_tasks.txt").read_text().split())
    held_out = {
        name
        for name, category in named.items()
        if official.level(card(prefix + name, canonical_category("super_natural_instructions", category)))
        != "supervised"
    }
    assert held_out >= listed & set(named)
