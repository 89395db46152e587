"""From a study's gin file to runs: what is the same run and what is another."""

from __future__ import annotations

import json

import pytest

from iml.errors import InputError
from iml.studies import work
from iml.studies.runs import expand, read_plan
from tests.studies import tiny

VALUES = "Factor.values = {}"


def names(folder, values: dict, *lines: str) -> dict[str, tuple[str, ...]]:
    """By setting, the names of its runs."""
    first = next(iter(values))
    plan = tiny.plan(folder, VALUES.format(values), f"Design.baseline = {first!r}", *lines)
    return {row.name: row.runs for row in plan.rows}


def test_the_same_in_other_words_is_one_run(tmp_path):
    said = {
        "32": ("Mixture.eps = 32",),
        "none": ("Mixture.eps = None",),
        "more than there is": ("Mixture.eps = 4096",),
        "by a macro": ("CAP = 32", "Mixture.eps = %CAP"),
        "twice": (("Mixture.eps = 2",), ("Mixture.eps = 32",)),
        "2": "Mixture.eps = 2",
        "order": ("LOG_PERIOD = 1", "CHECKPOINT_PERIOD = 3", "Mixture.eps = 2"),
    }
    found = names(tmp_path, said)
    # Every task has fewer than 32 examples: the cap takes nothing.
    assert len({found[name] for name in ("32", "none", "more than there is", "by a macro", "twice")}) == 1
    assert found["2"] == found["order"] != found["32"]


@pytest.mark.parametrize("change", ["KEEP = None", "CHECKPOINT_PERIOD = 3"])
def test_which_checkpoints_there_are_matters_where_one_is_chosen(tmp_path, change):
    values = {"a": (), "b": change}
    last, best = names(tmp_path, values), names(tmp_path, values, "Design.choose_checkpoint = True")
    assert last["a"] == last["b"] and best["a"] != best["b"]
    assert last["untuned"] == best["untuned"]


@pytest.mark.parametrize(
    "change",
    [
        "LEARNING_RATE = 1e-3",
        "TRAIN_STEPS = 7",
        "BATCH_SIZE = 4",
        "OPTConfig.ffn_dim = 32",
        "OPTConfig.init_std = 0.1",
        "SEED = 5",
        "PromptFormat.shots_distribution = (1.0,)",
        "Packing.document_mask = False",
        "MICROBATCHES = 2",
    ],
)
def test_what_changes_the_result_changes_the_run(tmp_path, change):
    if change.startswith("Packing"):
        change = f"train.packing = @Packing()\n{change}"
    if change.startswith("SEED"):
        # The study's own seeds win over a setting's.
        base, other = names(tmp_path, {"a": ()}), names(tmp_path, {"a": ()}, "Design.seeds = (5,)")
        assert base["a"] != other["a"]
        return
    found = names(tmp_path, {"a": (), "b": tuple(change.split("\n"))})
    assert found["a"] != found["b"]


def test_the_store_s_contents_and_the_suite_name_what_they_decide(tmp_path):
    plan = tiny.plan(tmp_path)
    asked_more = tiny.plan(tmp_path, "Design.suites = {'suite': 'Suite.max_prompts_per_task = 5'}")
    assert [run.name for run in plan.runs] == [run.name for run in asked_more.runs]
    assert plan.rows[0].evaluations != asked_more.rows[0].evaluations
    other = tiny.plan(tmp_path / "other", rows=13)
    assert not {run.name for run in plan.runs[1:]} & {run.name for run in other.runs[1:]}


def test_the_untuned_model_is_one_run_for_all_studies_of_a_base(tmp_path):
    first = tiny.plan(tmp_path, "Design.seeds = (1,)")
    other = tiny.plan(
        tmp_path, VALUES.format({"8": "LEARNING_RATE = 1e-4"}), "Design.baseline = '8'", "Design.name = 'rates'",
        "Design.seeds = (1,)",
    )  # fmt: skip
    assert first.rows[0].name == other.rows[0].name == "untuned" and first.rows[0].runs == other.rows[0].runs
    assert first.rows[0].evaluations == other.rows[0].evaluations
    untuned = first.runs[0]
    assert untuned.steps == 0 and untuned.name in first.rows[0].runs
    assert len(tiny.plan(tmp_path, "Design.untuned = False").rows) == 3


def test_an_untuned_model_for_each_size(tmp_path):
    sizes = {"small": "OPTConfig.ffn_dim = 16", "large": "OPTConfig.ffn_dim = 32"}
    found = names(tmp_path, sizes)
    assert {"untuned, small", "untuned, large"} <= found.keys()
    assert found["untuned, small"] != found["untuned, large"]
    plan = tiny.plan(tmp_path, VALUES.format(sizes), "Design.baseline = 'small'", "Design.seeds = (1, 2)")
    assert [run.title for run in plan.runs[1:3]] == ["untuned, small, seed 2", "untuned, large, seed 1"]


def test_an_untuned_model_for_all_rates_of_dropout(tmp_path):
    found = names(tmp_path, {rate: f"OPTConfig.dropout = {rate}" for rate in ("0.0", "0.1", "0.2")})
    assert list(found) == ["untuned", "0.0", "0.1", "0.2"] and len(set(found.values())) == 4


def test_untuned_models_with_nothing_in_common_are_called_by_their_settings(tmp_path):
    sizes = {"small": "OPTConfig.ffn_dim = 16", "large": "OPTConfig.ffn_dim = 32"}
    values = {
        f"{name}{eps}": (line, f"Mixture.eps = {eps}") for name, line in sizes.items() for eps in (2, 8)
    }
    found = names(tmp_path, values)
    assert list(found)[:2] == ["untuned (small2; small8)", "untuned (large2; large8)"]
    assert found["untuned (small2; small8)"] != found["untuned (large2; large8)"]


def test_a_grid_over_seeds(tmp_path):
    plan = tiny.plan(
        tmp_path,
        "Design.factors = (@Factor(), @rate/Factor())",
        "rate/Factor.name = 'rate'",
        "rate/Factor.values = {'low': 'LEARNING_RATE = 1e-4', 'high': 'LEARNING_RATE = 1e-3'}",
        "Design.baseline = '2, low'",
        "Design.seeds = (3, 4)",
    )
    settings = [row for row in plan.rows if row.values]
    assert [row.name for row in settings] == [f"{e}, {r}" for e in (2, 8, "none") for r in ("low", "high")]
    assert settings[1].values == {"EPS": "2", "rate": "high"}
    assert all(len(set(row.runs)) == 2 for row in settings)
    # Seed by seed, the untuned model of each seed first.
    titles = [run.title for run in plan.runs]
    assert titles[0].startswith("untuned") and titles[2:4] == ["2, low, seed 3", "2, high, seed 3"]
    assert len(plan.runs) == 2 + 2 * 6
    first = plan.runs[2]
    assert first.steps == 6 and first.tokens == 6 * 2 * 64 and first.flops > first.tokens


def test_runs_begin_from_others(tmp_path):
    lines = (
        "Design.before = {'first': 'Mixture.eps = 4'}",
        VALUES.format({"a": "INIT_FROM = '{first}'", "b": "Mixture.eps = 8"}),
        "Design.baseline = 'a'",
    )
    plan = tiny.plan(tmp_path, *lines)
    first = plan.runs[0]
    runs = {run.title: run for run in plan.runs}
    assert runs["a"].begins_from == first.name and runs["b"].begins_from is None
    assert f"INIT_FROM = '{tmp_path / 'studies' / 'runs' / first.name}'" in runs["a"].bindings
    assert first.evaluations == () and all(first.name not in row.runs for row in plan.rows)
    other = tiny.plan(tmp_path, "Design.before = {'first': 'Mixture.eps = 3'}", *lines[1:])
    assert {run.title: run.name for run in other.runs}["a"] != runs["a"].name


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = tiny.plan(tmp_path, "Design.choose_checkpoint = True")
    work.write_json(tmp_path / "plan.json", plan.to_json())
    assert read_plan(tmp_path / "plan.json") == (plan.directory, plan.runs)
    for text, problem in (("[]", "not a study's plan"), ("{", "not a study's plan")):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError, match=problem):
            read_plan(tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"iml\.study --dry_run writes it"):
        read_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["Design.baseline = '3'"], r"no setting '3'.*The settings: 2, 8, none"),
        ([VALUES.format({"2": "Mixture.epss = 2"})], r"in the setting '2': .*'epss'.*Mixture.eps"),
        ([VALUES.format({"2": "Mixture.eps = ("})], "in the setting '2'"),
        ([VALUES.format({"2": "Mixture.eps = 'many'"})], "in the setting '2': .*must be"),
        (
            [VALUES.format({"2": "TRIAN_STEPS = 2"})],
            "'TRIAN_STEPS' is bound but nothing uses it.*TRAIN_STEPS",
        ),
        ([VALUES.format({"2": 5})], "must be lines of a gin file, not 5"),
        (
            [
                "Design.factors = (@Factor(), @b/Factor())",
                "b/Factor.name = 'b'",
                "b/Factor.values = {'c': (), 'b, c': ()}",
                VALUES.format({"a": (), "a, b": ()}),
            ],
            "several settings are called 'a, b, c'",
        ),
        (
            [VALUES.format({"untuned": ()}), "Design.baseline = 'untuned'"],
            "'untuned' is what the untuned model",
        ),
        (
            ["Design.suites = {'a': (), 'b': ()}", "Factor.suites = {'2': 'a', '8': 'a', 'none': 'a'}"],
            "no setting is asked the suite 'b'",
        ),
        (["Factor.suites = {'2': ()}"], "the setting '2' is asked no suite"),
        (
            ["Design.published = ('opt_iml_table_99',)"],
            "no published table 'opt_iml_table_99'.*opt_iml_table_4",
        ),
        (["Factor.values = {}"], "needs at least one value"),
        (["Design.seeds = (1, 1)"], "each may be named once"),
        (["Design.seeds = ()"], "needs at least one entry"),
        (["Design.name = 'a/b'"], "cannot be a folder's name"),
        (["Design.suites = {'suite': 'Suite.shotss = (0,)'}"], "'shotss'"),
        (["TINY_STORE = '/nowhere'"], "/nowhere"),
        (["Base.train = ('runs/none.gin',)"], "no such gin file"),
    ],
)
def test_mistakes_are_told(tmp_path, lines, problem):
    with pytest.raises(InputError, match=f"(?s){problem}"):
        expand(tiny.read_design(tmp_path, *lines), tmp_path / "studies")


def test_plans_are_the_same_each_time(tmp_path):
    first, second = (json.dumps(tiny.plan(tmp_path).to_json()) for _ in range(2))
    assert first == second
