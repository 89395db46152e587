"""Levels and categories: definitions that hold for every task there is, and errors that name file and field."""

import fnmatch
import json
import pathlib
import re

import pytest

import tasks
from iml.bench.card import BENCHMARKS, TaskCard
from iml.bench.categories import broader, canonical_category, categories, merges
from iml.bench.levels import (
    EVALUATION_ONLY,
    LEVELS,
    SplitScheme,
    flan_clusters,
    leave_one_out_schemes,
    load_split_scheme,
    split_schemes,
)
from iml.errors import InputError

TASKS = pathlib.Path(tasks.__file__).parent


def card(name, category="Question Answering"):
    return TaskCard(name, name.partition(".")[0], category)


ALL_SCHEMES = (*split_schemes(), *leave_one_out_schemes())


def test_every_scheme_of_the_package_names_known_categories_and_levels():
    assert {"opt_iml", "opt_iml_max", "super_ni_official", "t0", "pocket"} <= set(split_schemes())
    assert len(leave_one_out_schemes()) == 12
    for name in ALL_SCHEMES:
        scheme = load_split_scheme(name)
        assert scheme.name == name
        assert {*scheme.fully_held_out_categories, *scheme.levels_by_category} <= set(categories())
        assert set(scheme.levels_by_task.values()) <= set(LEVELS)
        named = [*scheme.levels_by_task, *scheme.validation_tasks, *scheme.test_tasks]
        # SeqIO's rule for names: what breaks it would match no task.
        assert all(re.fullmatch(r"[\w.:#*?]+", re.sub(r"\[.+?\]", "", task)) for task in named)


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
@pytest.mark.parametrize("benchmark", EVALUATION_ONLY)
def test_evaluation_sets_are_never_trained_on(scheme, benchmark):
    for category in categories():
        evaluated = load_split_scheme(scheme).level(card(f"{benchmark}.anything", category))
        assert evaluated in ("fully_held_out", "partially_held_out")


def test_a_scheme_of_ones_own_cannot_train_on_evaluation_sets():
    everything = SplitScheme.from_json({"name": "own", "levels_by_task": {"*": "supervised"}})
    assert everything.level(card("bbh.navigate", "BIG-Bench Hard")) == "partially_held_out"
    with pytest.raises(InputError, match="mmlu is for evaluation alone"):
        SplitScheme.from_json({"name": "own", "levels_by_task": {"mmlu.law": "supervised"}})


@pytest.mark.parametrize(
    ("name", "category", "level", "sets"),
    [
        # Table 15, one row of each kind.
        ("promptsource.wino_bias_type1_pro", "Stereotype Detection", "fully", "validation"),
        ("super_natural_instructions.task1664_winobias_text_generation", "Coreference Resolution", "fully",
         "validation"),
        ("super_natural_instructions.task1156_bard_analogical_reasoning_tools", "Word Analogy", "fully",
         "validation"),
        ("flan.copa", "Cause Effect Classification", "fully", "validation"),
        ("super_natural_instructions.task1557_jfleg_answer_generation", "Grammar Error Correction", "fully",
         "validation"),
        ("mmlu.anatomy", "MMLU", "partially", "validation test"),
        ("super_natural_instructions.task1722_civil_comments_threat_classification",
         "Toxic Language Detection", "partially", "validation"),
        ("promptsource.jigsaw_unintended_bias", "Toxic Language Detection", "partially", "validation"),
        ("flan.newsroom", "Summarization", "partially", "validation"),
        ("promptsource.race_high", "Question Answering", "partially", "validation"),
        ("reasoning.strategyqa", "Reasoning", "partially", "validation"),
        ("reasoning.gsm8k", "Reasoning", "partially", "validation"),
        ("flan.squad_v1", "Question Answering", "supervised", "train validation"),
        ("promptsource.blended_skill_talk", "Dialogue Generation", "supervised", "train validation"),
        ("promptsource.cnn_dailymail_3.0.0", "Summarization", "supervised", "train validation"),
        # The test sides of sections 5.2 to 5.5.
        ("super_natural_instructions.task1385_anli_r1_entailment", "Textual Entailment", "fully", "test"),
        ("promptsource.story_cloze_2016", "Sentence Completion", "fully", "test"),
        ("promptsource.super_glue_wic", "Word Sense Disambiguation", "fully", "test"),
        ("promptsource.super_glue_axg", "Textual Entailment", "partially", "test"),
        ("flan.bool_q", "Question Answering", "partially", "test"),
        ("unified_skg.dart", "Data to Text", "partially", "test"),
        ("unified_skg.spider", "Semantic Parsing", "supervised", "train test"),
        ("bbh.navigate", "BIG-Bench Hard", "partially", "test"),
        # Neither trained on nor evaluated: they share their texts with an evaluated task.
        ("super_natural_instructions.task381_boolq_question_generation", "Question Generation", "partially", ""),
        ("crossfit.superglue_wic", "Word Sense Disambiguation", "fully", ""),
        # And what the bench trains on.
        ("reasoning.esnli", "Reasoning", "supervised", "train"),
        ("promptsource.imdb", "Sentiment Analysis", "supervised", "train"),
        ("pretraining.c4", "Language Modeling", "supervised", "train"),
    ],
)  # fmt: skip
def test_opt_iml_is_the_papers_split(name, category, level, sets):
    scheme = load_split_scheme("opt_iml")
    task = card(name, category)
    assert scheme.level(task).removesuffix("_held_out") == level
    assert scheme.sets(task) == tuple(sets.split())
    most = load_split_scheme("opt_iml_max")
    assert most.level(task) == ("partially_held_out" if task.benchmark in EVALUATION_ONLY else "supervised")


def test_a_narrower_category_is_held_out_with_its_broader_one():
    scheme = SplitScheme("own", ("Question Answering",), {}, {"Text Completion": "partially_held_out"})
    assert scheme.level(card("a.b", "Table Question Answering")) == "fully_held_out"
    assert scheme.level(card("a.b", "Sentence Completion")) == "partially_held_out"
    finer = SplitScheme("own", ("Table Question Answering",))
    assert finer.level(card("a.b", "Question Answering")) == "supervised"


def test_leaving_out_a_cluster_of_flan():
    level = load_split_scheme("flan_leave_one_out:natural_language_inference").level
    assert level(card("flan.anli_r1", "Textual Entailment")) == "fully_held_out"
    assert level(card("promptsource.anli", "Textual Entailment")) == "fully_held_out"
    assert level(card("flan.glue_mrpc", "Text Matching")) == "partially_held_out"
    assert level(card("crossfit.glue-mrpc", "Text Matching")) == "partially_held_out"
    assert level(card("flan.copa", "Cause Effect Classification")) == "supervised"
    # Reading comprehension with common sense goes with either of the two, but they do not go together.
    level = load_split_scheme("flan_leave_one_out:commonsense").level
    assert level(card("flan.cosmos_qa")) == "partially_held_out"
    assert level(card("promptsource.cosmos_qa")) == "partially_held_out"
    assert level(card("promptsource.piqa")) == "fully_held_out"
    assert level(card("flan.squad_v1")) == level(card("promptsource.squad")) == "supervised"
    with pytest.raises(InputError, match="flan_leave_one_out:sentiment"):
        load_split_scheme("flan_leave_one_out:sentimant")

    clusters = flan_clusters()["clusters"]
    members = [task for cluster in clusters.values() for task in cluster["tasks"]]
    defined = json.loads((TASKS / "definitions" / "flan_datasets.json").read_text())["datasets"]
    assert set(members) == set(defined), "the clusters name the tasks that the reader registers"
    assert len(members) == len(set(members)) == 69
    for left_out in clusters:
        scheme = load_split_scheme(f"flan_leave_one_out:{left_out}")
        levels = {task: scheme.level(card(f"flan.{task}")) for task in members}
        held_out = {task for task, level in levels.items() if level == "fully_held_out"}
        assert held_out == set(clusters[left_out]["tasks"])


def test_t0_trains_on_its_own_tasks_alone(real_data):
    import csv

    with (real_data / "t_zero" / "datasets.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = {"t0": {"BASE"}, "t0_plus": {"BASE", "GPT_EVAL"}, "t0_plus_plus": {"BASE", "GPT_EVAL", "SGLUE"}}
    for name, kinds in steps.items():
        scheme = load_split_scheme(name)
        for row in rows:
            folder = "_".join(filter(None, (row["HF_name"], row["subset"])))
            level = scheme.level(card("promptsource." + folder.replace("-", "_")))
            assert (level == "supervised") == (row["do_train"] in kinds), (name, folder)
        held_out = [row["task_by_convention"] for row in rows if row["do_eval"] == "BASE"]
        assert {"NLI", "coreference", "story_completion", "word_sense_disambiguation"} <= set(held_out)
        assert scheme.level(card("promptsource.anli", "Textual Entailment")) == "fully_held_out"
        assert scheme.level(card("flan.imdb_reviews", "Sentiment Analysis")) == "partially_held_out"


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


def named_categories(record):
    """What a definition file gives as categories, wherever it does."""
    if isinstance(record, dict):
        for key, value in record.items():
            if key == "category" and isinstance(value, str):
                yield value
            elif key == "categories" and isinstance(value, dict):
                yield from value.values()
            else:
                yield from named_categories(value)
    elif isinstance(record, list):
        for value in record:
            yield from named_categories(value)


def test_the_definitions_of_the_tasks_use_the_taxonomy():
    found = {
        path.stem: list(named_categories(json.loads(path.read_text())))
        for path in (TASKS / "definitions").glob("*.json")
    }
    assert len(found["promptsource_categories"]) > 200 and found["opt_tasks"] and found["unified_skg"]
    for family, names in found.items():
        assert all(canonical_category(family, name) in categories() for name in names), family
    catalogue = json.loads((TASKS / "pocket" / "data" / "catalogue.json").read_text())
    assert {entry["card"]["category"] for entry in catalogue} <= set(categories())


def test_the_documented_scheme_is_one():
    text = (TASKS.parent / "docs" / "bench.md").read_text()
    record = json.loads(text.partition("```json\n")[2].partition("```")[0])
    scheme = SplitScheme.from_json(record)
    assert scheme.level(card("promptsource.race_high")) == "partially_held_out"
    assert scheme.sets(card("t5.wmt14_enfr", "Translation")) == ("test",)


def test_a_category_is_found_under_the_names_that_families_use():
    assert canonical_category("super_natural_instructions", " textual_entailment ") == "Textual Entailment"
    assert canonical_category("flan", "Closed-book QA") == "Question Answering"
    assert canonical_category("crossfit", "cls/hate_speech_detection") == "Toxic Language Detection"
    # T5's sentence completion is COPA, which table 15 has among the cause-effect tasks; T0's is another.
    assert canonical_category("t5", "sentence completion") == "Cause Effect Classification"
    assert canonical_category("promptsource", "sentence completion") == "Sentence Completion"
    with pytest.raises(InputError, match=r"unknown category 'Basket Weaving'.*categories\.json"):
        canonical_category("flan", "Basket Weaving")


def test_the_taxonomy_is_whole():
    assert len(categories()) > 100 and list(categories()) == sorted(set(categories()))
    assert {*broader(), *broader().values()} <= set(categories())
    assert not set(broader()) & set(broader().values()), "kinds of kinds would not be looked up"
    for benchmark in ("*", *BENCHMARKS, *EVALUATION_ONLY, "pretraining", "dialogue"):
        assert set(merges(benchmark).values()) <= set(categories())
    own = {"flan": 12, "crossfit": 21, "exmix": 10, "t5": 9, "unified_skg": 6, "promptsource": 10}
    assert all(len(merges(benchmark)) >= count for benchmark, count in own.items())


def test_the_taxonomy_and_the_schemes_fit_the_real_files(real_data):
    folder = real_data / "super_natural_instructions"
    pytest.importorskip("seqio")
    from tasks.super_natural_instructions import task_name

    records = {
        task_name(path.stem): json.loads(path.read_bytes()) for path in (folder / "tasks").glob("*.json")
    }
    named = {name: record["Categories"][0] for name, record in records.items()}
    every = {category for record in records.values() for category in record["Categories"]}
    assert len(named) > 1400 and len(every) >= 75
    assert all(canonical_category("super_natural_instructions", name) in categories() for name in every)

    scheme, prefix = load_split_scheme("opt_iml"), "super_natural_instructions."
    lists = (folder / "splits" / "default").glob("*.txt")  # they name tasks whose files are absent, too
    lists = [*lists, folder / "not_available.txt"]
    known = {*named, *(task_name(name) for file in lists for name in file.read_text().split())}
    for pattern in scheme.levels_by_task:
        if pattern.startswith(prefix):
            assert any(fnmatch.fnmatchcase(prefix + name, pattern) for name in known), pattern

    official = load_split_scheme("super_ni_official")
    listed = {
        split: set(map(task_name, (folder / "splits" / "default" / f"{split}_tasks.txt").read_text().split()))
        for split in ("train", "test")
    }
    cards = {
        name: card(prefix + name, canonical_category("super_natural_instructions", category))
        for name, category in named.items()
    }
    trained = {name for name in named if official.level(cards[name]) == "supervised"}
    tested = {name for name in named if "test" in official.sets(cards[name])}
    assert trained == listed["train"] & set(named)
    assert tested == listed["test"] & set(named)
    assert all(official.level(cards[name]) == "fully_held_out" for name in tested)
