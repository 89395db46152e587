"""The studies that come with iml: they expand over the embedded benchmark, and vary what they say."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from iml import configuration
from iml.studies import design as design_lib
from iml.studies.report import published_grids
from iml.studies.runs import Plan, expand
from iml.study import FLAGS, study

FILES = sorted(path.name for path in (configuration.CONFIG_DIR / "studies").glob("*.gin"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("pocket")
    command = [sys.executable, "-m", "iml.prepare", "--gin_file=runs/quickstart/prepare.gin"]
    subprocess.run([*command, f"--gin.STORE_DIR={folder}"], check=True, capture_output=True)
    return folder


def plan_of(name: str, store: pathlib.Path, folder: pathlib.Path) -> Plan:
    given = configuration.arguments(
        study, design_lib.CONFIGURABLES, [f"studies/{name}"], [f"Base.store_dir = {str(store)!r}"], FLAGS
    )
    return expand(given["design"], folder)


@pytest.mark.parametrize("name", FILES)
def test_it_expands_over_the_embedded_benchmark(name, store, tmp_path):
    plan = plan_of(name, store, tmp_path)
    assert plan.design.name == name.removesuffix(".gin")
    settings = [row for row in plan.rows if row.values]
    assert len({row.runs for row in settings}) >= 2, "nothing is varied"
    for grid in published_grids(plan.design.published):
        assert {len(row) for row in grid.rows} == {len(grid.head)}


def test_studies_share_their_base_and_its_untuned_model(store, tmp_path):
    runs = {
        name: plan_of(name, store, tmp_path) for name in ("eps.gin", "pretraining_share.gin", "packing.gin")
    }
    rows = {name: {row.name: row.runs for row in plan.rows} for name, plan in runs.items()}
    base = rows["eps.gin"]["none"]
    assert rows["eps.gin"]["4096"] == base, "no task has so many examples"
    assert rows["pretraining_share.gin"]["0 %"] == base
    assert rows["packing.gin"]["document mask, positions reset"] == base
    assert len({found["untuned"] for found in rows.values()}) == 1
