"""Suites: the files that come with the package, what they select, what they tell is missing, how Winograd is
scored."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from iml import configuration, evaluate
from iml.bench.levels import load_split_scheme
from iml.data.prompts import PromptFormat, render_request
from iml.data.store import ExampleStore
from iml.errors import InputError
from iml.evaluation import requests
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.evaluation.ranking import scorer_names
from iml.evaluation.suites import Suite
from iml.models.opt import OPT
from iml.training import checkpoints
from iml.training.mesh import MeshConfig
from iml.training.rules import PartitionRules
from tests.data.small_vocabulary import write_vocabulary
from tests.evaluation.models import small_config, small_model
from tests.stores import make_store

FILES = sorted(pathlib.Path(configuration.CONFIG_DIR, "evals").glob("*.gin"))
CHOICE = {"source": "Is it?\nAnswer:", "target": "A", "candidates": ["A", "B"]}


def recorder(found):
    """An entry point with evaluate's name and parameters, which keeps its suite."""

    def record(
        model, store_dir, output_dir, suite=None, vocabulary_dir=None, batch_size=8, max_length=None,
        bos=False, dtype=None, mesh=None, seed=0, compare=(), dry_run=False,
    ):  # fmt: skip
        found["suite"] = suite

    record.__name__ = "evaluate"
    return record


def suite_of(path):
    """The suite that a file describes."""
    configured = configuration.configure(
        recorder(found := {}),
        (Suite, Decoding, PromptFormat, MeshConfig, PartitionRules),
        [str(path)],
        ["MODEL='m'", "STORE_DIR='s'", "OUTPUT_DIR='o'"],
    )
    configured()
    return found["suite"]


@pytest.fixture
def store(tmp_path):
    def task(**card):
        return {
            "card": {"metrics": ["accuracy"], **card},
            "test": [{**CHOICE, "source": f"{i}"} for i in "ab"],
        }

    te, qa = {"category": "Textual Entailment"}, {"category": "Question Answering"}
    return make_store(
        tmp_path,
        {
            "super_natural_instructions.task1_nli": task(**te),
            "super_natural_instructions.task2_qa": task(**qa),
            "super_natural_instructions.task3_nli": {"card": te, "validation": [("a", "b")]},
            "t5.train_only": {"train": [("a", "b")]},
            "bbh.snarks": task(category="BIG-Bench Hard"),
            "bbh.snarks_cot": task(category="BIG-Bench Hard"),
            "mmlu.virology": {
                **task(category="MMLU", instruction_level="task"),
                "exemplars": [{"uid": f"dev-{i}", **CHOICE, "source": f"shown {i}"} for i in range(5)],
            },
        },
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_describes_a_suite(path):
    suite = suite_of(path)
    assert suite.tasks and (path.stem in ("default", "as_written") or suite.name != "validation")
    assert suite.primary_scorer in scorer_names(suite.scorers, suite.with_eos)


def test_suites_select_what_the_tables_name(store):
    def chosen(name):
        suite = suite_of(next(path for path in FILES if path.stem == name))
        return set(requests.select(store, suite, seed=1))

    assert chosen("super_ni") == {"super_natural_instructions.task1_nli"}
    assert chosen("bbh") == {"bbh.snarks"} and chosen("bbh_cot") == {"bbh.snarks_cot"}
    assert chosen("mmlu") == {"mmlu.virology"}
    with pytest.raises(InputError, match=r"unified_skg\.dart"):
        chosen("unified_skg")


def test_the_prompts_of_a_suite_are_the_benchmarks_own(store):
    suite = suite_of(next(path for path in FILES if path.stem == "mmlu"))
    for seed in range(3):
        prompt = render_request(store, "mmlu.virology", "test", 1, suite.format, shots=2, seed=seed)
        assert prompt.source == "shown 0 A\n\nshown 1 A\n\nb"
    many = render_request(store, "mmlu.virology", "test", 1, suite.format, shots=32, seed=0)
    assert many.provenance["demonstrations"] == [f"dev-{i}" for i in range(5)]


def test_what_is_missing_is_told_and_the_rest_is_run(tmp_path, store, capsys):
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    config = small_config(vocabulary)
    params = OPT(config).init(jax.random.key(0))
    checkpoints.save_params(tmp_path / "model", config, params, vocabulary.directory)
    index = tmp_path / "store" / "index.json"
    record = json.loads(index.read_text())
    record["failures"] = {"bbh.add": "add.json:1: is not JSON"}
    index.write_text(json.dumps(record))
    suite = Suite(
        tasks=("mmlu.*", "raft.*", "bbh.add", "t5.train_only"),
        split="test",
        shots=(0,),
        decoding=Decoding(max_new_tokens=4),
        metric="rouge_l",
    )
    evaluate.evaluate(str(tmp_path / "model"), str(tmp_path / "store"), str(tmp_path / "out"), suite)
    shown = capsys.readouterr().out
    assert shown.index("missing: raft.*: not in the store") < shown.index("suite validation")
    assert "missing: bbh.add: could not be prepared: add.json:1" in shown
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores["failures"]) == {"raft.*", "bbh.add", "t5.train_only"}
    assert "its splits being train" in scores["failures"]["t5.train_only"]
    assert scores["tasks"]["mmlu.virology"]["metric"] == "rouge_l"
    assert set(scores["tasks"]["mmlu.virology"]["metrics"]) == {"rouge_l", "accuracy"}
    assert "could not be prepared" in (tmp_path / "out" / "report.md").read_text()


def test_tasks_that_a_pattern_lacks_are_told_and_counted(tmp_path, store, capsys):
    row = {**CHOICE, "target": "SELECT 1", "metric_data": json.dumps({"database": "shop"})}
    sql = {"card": {"metrics": ["accuracy", "execution"]}, "test": [row | {"candidates": ["SELECT 1", "B"]}]}
    virology = {"card": {"metrics": ["accuracy"]}, "test": [CHOICE]}
    without = {"train": [("a", "b")]}
    tasks = {"mmlu.virology": virology, "mmlu.noeval": without, "t.sql": sql, "t.noeval": without}
    make_store(tmp_path, tasks)
    index = tmp_path / "store" / "index.json"
    record = json.loads(index.read_text())
    record["failures"] = {"mmlu.anatomy": "anatomy_test.csv:1: is empty"}
    index.write_text(json.dumps(record))
    opened = ExampleStore(tmp_path / "store")

    suite = suite_of(next(path for path in FILES if path.stem == "mmlu"))
    assert requests.missing(opened, suite) == {
        "mmlu.*": "1 of its 57 tasks have rows to evaluate",
        "mmlu.anatomy": "could not be prepared: anatomy_test.csv:1: is empty",
        "mmlu.noeval": "has no rows to evaluate, its splits being train",
    }
    # As many as there are to be; or no more asked for than what there is.
    assert requests.missing(opened, dataclasses.replace(suite, task_counts={"mmlu.*": 1})) == {}
    assert requests.missing(opened, Suite(tasks=("*",))).keys() == {"mmlu.anatomy"}

    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    config = small_config(vocabulary)
    params = OPT(config).init(jax.random.key(0))
    checkpoints.save_params(tmp_path / "model", config, params, vocabulary.directory)
    asked = dataclasses.replace(suite, tasks=("mmlu.*", "t.sql"), shots=(0,))
    evaluate.evaluate(str(tmp_path / "model"), str(tmp_path / "store"), str(tmp_path / "out"), asked)
    shown = capsys.readouterr().out
    told = "missing: databases of t.sql: field 'Suite.databases': no databases"
    assert shown.index(told) < shown.index("suite MMLU")
    report = (tmp_path / "out" / "report.md").read_text()
    assert "is not the whole suite: of mmlu.*, 1 of its 57 tasks" in report.replace("\\", "")


def test_the_validation_suite_is_the_split_schemes():
    suite = suite_of(next(path for path in FILES if path.stem == "opt_iml_validation"))
    assert set(suite.tasks) == set(load_split_scheme("opt_iml").validation_tasks)


def test_the_super_ni_suite_is_the_split_schemes(real_data):
    """Official test tasks of the suite's categories, by the real files, are those that the scheme tests."""
    suite = suite_of(next(path for path in FILES if path.stem == "super_ni"))
    home, prefix = real_data / "super_natural_instructions", "super_natural_instructions."
    official = set((home / "splits" / "default" / "test_tasks.txt").read_text().split())
    records = {path.stem: json.loads(path.read_bytes()) for path in (home / "tasks").glob("*.json")}
    fitting = {name for name in official & set(records) if records[name]["Categories"][0] in suite.categories}
    asked = fitting - {name.removeprefix(prefix) for name in suite.exclude}
    scheme = load_split_scheme("opt_iml").test_tasks
    tested = {name.removeprefix(prefix) for name in scheme if name.startswith(prefix)}
    assert asked == tested & set(records) and suite.task_counts == {f"{prefix}*": len(tested)} == {
        f"{prefix}*": 44
    }


def test_partial_scores_are_of_what_follows_the_referent(tmp_path):
    """P(ending | context + referent), computed without the scorer from likelihoods of plain continuations."""
    engine = OPTEngine(small_model(tmp_path))
    context, referents, ending = "they gave them", ["a cat", "the big dog"], "was here ."
    whole = [f"{name} {ending}" for name in referents]
    [found] = engine.likelihoods([(context, whole)])
    for name, likelihood in zip(referents, found, strict=True):
        [[alone]] = engine.likelihoods([(f"{context} {name}", [ending])])
        assert likelihood.ending == pytest.approx(alone.text, abs=1e-3)
        assert likelihood.ending > likelihood.text
    [different] = engine.likelihoods([(context, ["yes", "no"])])
    assert all(np.isclose(likelihood.ending, likelihood.text) for likelihood in different)


def test_validation_draws_250_prompts_a_task_and_test_takes_all():
    assert Suite().max_prompts_per_task == 250 and Suite(split="test").max_prompts_per_task is None
    assert Suite(split="test", max_prompts_per_task=9).max_prompts_per_task == 9
    assert Suite(max_prompts_per_task=None).max_prompts_per_task is None


@pytest.mark.parametrize(
    "setting", [{"max_prompts_per_task": "many"}, {"tasks": ()}, {"categories": ()}, {"metric": "rouge"}]
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(InputError, match=f"Suite.{next(iter(setting))}"):
        Suite(**setting)
