"""Apache Beam's runners make the same store and find the same overlaps as this machine's own processes."""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys

import pytest

from iml import prepare as prepare_lib
from iml import seqio_bridge
from iml.beam import Beam, map_items
from iml.bench import registry
from iml.contaminate import contaminate
from iml.data.store import ExampleStore
from iml.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason='needs Apache Beam: pip install -e ".[data,beam]"')
# Its modules warn of Python features and of Google's clients that are not there.
pytestmark = pytest.mark.filterwarnings("ignore")

TWO_WORKERS = Beam("FnApiRunner", ("--direct_num_workers=2", "--direct_running_mode=multi_processing"))
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


def square(number, plus, folder):
    (pathlib.Path(folder) / f"{os.getpid()}-{number}").touch()
    return {"square": number**2 + plus}


def fail(number):
    raise ValueError(f"number {number}")


@pytest.fixture
def importable(monkeypatch):
    """Workers in other processes import this module and the project."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def runner(request):
    """The runner of a parameter's name; for Dask's a cluster of two worker processes is started."""
    if request.param != "dask":
        yield {"direct": Beam(), "two processes": TWO_WORKERS}[request.param]
        return
    distributed = pytest.importorskip("distributed", reason='needs Dask: pip install "apache-beam[dask]"')
    with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = f"--dask_client_address={cluster.scheduler_address}"
        yield Beam(DASK, (address, "--dask_partition_size=1"))
        with contextlib.suppress(ValueError):  # The runner leaves its clients open, until there are none.
            while True:
                distributed.default_client().close()


every_runner = pytest.mark.parametrize(
    "runner",
    ["direct", *(pytest.param(name, marks=pytest.mark.slow) for name in ("two processes", "dask"))],
    indirect=True,
)


@needs_beam
@every_runner
def test_items_are_mapped_in_order(runner, importable, tmp_path):
    (tmp_path / "calls").mkdir()
    arguments = {"plus": 1, "folder": str(tmp_path / "calls")}
    results = list(map_items(runner, "tests.test_beam:square", range(40), arguments, tmp_path))
    assert results == [{"square": number**2 + 1} for number in range(40)]
    calls = [path.name.split("-") for path in (tmp_path / "calls").iterdir()]
    assert {number for _, number in calls} == set(map(str, range(40)))
    # The direct runner alone works in this process.
    assert (str(os.getpid()) in {process for process, _ in calls}) == (runner == Beam())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls"]


@needs_beam
def test_failures_come_through_and_nothing_stays_behind(importable, tmp_path):
    with pytest.raises(Exception, match="number 3"):
        list(map_items(Beam(), "tests.test_beam:fail", [3], {}, tmp_path))
    with pytest.raises(InputError, match=r"field 'Beam\.runner'.*NoRunner"):
        list(map_items(Beam("NoRunner"), "tests.test_beam:fail", [3], {}, tmp_path))
    assert not list(tmp_path.iterdir())


def test_without_beam_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[data,beam\]"'):
        list(map_items(Beam(), "tests.test_beam:square", [1], {}, tmp_path))


@needs_beam
@every_runner
def test_the_pocket_benchmark_is_prepared_and_compared_alike(runner, importable, tmp_path):
    def prepare(name, beam):
        for task in registry.names():
            seqio_bridge.remove_task(task)
        try:
            prepare_lib.prepare(["tasks.pocket"], "", str(tmp_path / name), processes=1, beam=beam)
        finally:
            for task in registry.names():
                seqio_bridge.remove_task(task)
        return ExampleStore(tmp_path / name)

    def compare(name, beam):
        result = contaminate(str(tmp_path / "own"), str(tmp_path / name), "pocket", processes=1, beam=beam)
        lines = (tmp_path / name / "decisions.examples.jsonl").read_text()
        return {key: result[key] for key in ("listed", "below", "shared_instructions", "evaluation")}, lines

    own, theirs = prepare("own", None), prepare("theirs", runner)
    assert theirs.tasks == own.tasks and theirs.failures == own.failures
    files = [path.relative_to(own.path) for path in sorted(own.path.rglob("*.array_record"))]
    assert len(files) > 40
    for file in files:
        assert (own.path / file).read_bytes() == (theirs.path / file).read_bytes()
    assert [path.name for path in theirs.path.iterdir() if path.name.startswith(".beam")] == []
    assert prepare("theirs", runner).tasks == own.tasks
    assert json.dumps(compare("a", None)) == json.dumps(compare("b", runner))
