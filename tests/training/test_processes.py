"""Real processes of one run: they read disjoint rows, end together, and go on on another mesh."""

import collections
import json

import pytest

from iml.training.distributed import REQUEUE
from tests.training import tiny

RUN = {"steps": 30, "checkpoint_period": 10, "log_period": 5, "model": {"dropout": 0.0}}


def losses(run):
    """The loss of each log period, whose records a stop may have cut in two."""
    sums, tokens = collections.Counter(), collections.Counter()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        period = -(-record["step"] // RUN["log_period"])
        sums[period] += record["loss"] * record["target_tokens"]
        tokens[period] += record["target_tokens"]
    return [sums[period] / tokens[period] for period in sorted(sums)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with a run of one process and four devices, and the rows that it read."""
    folder = tmp_path_factory.mktemp("straight")
    tiny.prepare(folder)
    tiny.finish(tiny.start(folder, devices=4, mesh={"data": 1, "fsdp": 4}, rows="rows", **RUN))
    return folder


@pytest.mark.slow
def test_four_processes_read_each_row_once_and_do_what_one_does(straight, tmp_path):
    tiny.prepare(tmp_path)
    tiny.finish(*tiny.start_many(tmp_path, 4, rows="rows", mesh={"data": 1, "fsdp": 4}, **RUN))
    parts = [tmp_path / f"rows{number}" for number in range(4)]
    assert tiny.recorded_rows(*parts) == tiny.recorded_rows(straight / "rows")
    assert {lane for _, lane in tiny.recorded_rows(parts[1])} == {2, 3}  # of the eight lanes
    # Sums across processes are taken in another order.
    assert losses(tmp_path / "run") == pytest.approx(losses(straight / "run"), rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_on_other_meshes_and_numbers_of_processes(straight, tmp_path):
    tiny.prepare(tmp_path)
    rows = []

    def part(number, processes, stop, **mesh):
        settings = RUN | {"mesh": mesh, "devices": 4 // processes}
        if stop:
            # Killed two steps after a checkpoint, which are then done again.
            settings["strike_at"] = (stop + 2, stop, "kill")
        status = {"status": -9} if stop else {}
        if processes == 1:
            tiny.finish(tiny.start(tmp_path, rows=f"rows{number}-0", **settings), **status)
        else:
            first, *others = tiny.start_many(tmp_path, processes, rows=f"rows{number}-", **settings)
            assert not stop
            tiny.finish(first, *others)
        paths = [tmp_path / f"rows{number}-{process}" for process in range(processes)]
        rows.append(tiny.recorded_rows(*paths))

    part(0, 1, 10, data=1, fsdp=4)
    part(1, 1, 20, data=2, tensor=2)
    part(2, 2, 0, data=1, fsdp=2, tensor=2)
    expected = tiny.recorded_rows(straight / "rows")
    assert [min(step for step, _ in read) for read in rows] == [1, 11, 21]
    for read in rows:
        assert read.items() <= expected.items()
    assert set().union(*rows) == expected.keys()
    assert losses(tmp_path / "run") == pytest.approx(losses(straight / "run"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "struck", "statuses", "said"),
    [
        ("kill", 0, (-9, REQUEUE), "process 0 of 2 is gone"),
        ("kill", 1, (REQUEUE, -9), "process 1 of 2 is gone"),
        ("fail", 1, (2, 2), "error: process 1: an example cannot be read"),
    ],
)
def test_processes_end_together(tmp_path, deed, struck, statuses, said):
    tiny.prepare(tmp_path)
    processes = tiny.start_many(tmp_path, 2, strike_at=(12, 10, deed, struck), **RUN)
    for number, (process, status) in enumerate(zip(processes, statuses, strict=True)):
        text = tiny.finish(process, status=status)
        if status != -9:
            assert text.count("error:") == 1 and said in text, (number, text)
            assert "Traceback" not in text


@pytest.mark.slow
def test_sigterm_to_one_process_saves_in_all_and_asks_for_another_start(straight, tmp_path):
    tiny.prepare(tmp_path)
    settings = RUN | {"mesh": {"data": 1, "fsdp": 4}, "devices": 2}
    said = tiny.finish(
        *tiny.start_many(tmp_path, 2, strike_at=(12, 10, "term", 1), **settings), status=REQUEUE
    )
    assert "status 75 asks for another start" in said
    assert 12 <= tiny.steps(tmp_path / "run")[-1] < 30
    tiny.finish(*tiny.start_many(tmp_path, 2, **settings))
    assert losses(tmp_path / "run") == pytest.approx(losses(straight / "run"), rel=1e-3)
