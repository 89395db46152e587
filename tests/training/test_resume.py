"""A run that is killed and gone on with ends with the very bits of one that ran through."""

import json

import pytest

from iml.training.distributed import REQUEUE
from tests.training import tiny

RUN = {"steps": 60, "checkpoint_period": 20, "log_period": 10}


def logged_steps(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_killed_and_resumed_runs_are_bit_equal_on_any_threads_and_processes(tmp_path):
    straight, killed, spread = (tmp_path / name for name in ("straight", "killed", "spread"))
    for folder in (straight, killed, spread):
        tiny.prepare(folder)
    tiny.finish(tiny.start(straight, devices=2, **RUN))
    expected = tiny.digest(straight / "run")

    tiny.finish(tiny.start(killed, devices=2, strike_at=(27, 20, "kill"), data_threads=1, **RUN), status=-9)
    assert max(tiny.steps(killed / "run")) == 20
    tiny.finish(tiny.start(killed, devices=2, data_threads=4, **RUN))
    assert tiny.digest(killed / "run") == expected
    assert logged_steps(killed / "run") == logged_steps(straight / "run") == [10, 20, 30, 40, 50, 60]

    # The same mesh of two devices, one in each of two processes; then back to one process.
    # The process that is killed takes the other one along.
    survivor, victim = tiny.start_many(spread, 2, strike_at=(27, 20, "kill", 1), **RUN)
    tiny.finish(victim, status=-9)
    tiny.finish(survivor, status=REQUEUE)
    assert max(tiny.steps(spread / "run")) == 20
    tiny.finish(tiny.start(spread, devices=2, strike_at=(47, 40, "kill"), **RUN), status=-9)
    tiny.finish(*tiny.start_many(spread, 2, **RUN))
    assert tiny.digest(spread / "run") == expected
    assert logged_steps(spread / "run") == [10, 20, 30, 40, 50, 60]


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_earlier_checkpoints_whole(tmp_path):
    tiny.prepare(tmp_path)
    said = tiny.finish(tiny.start(tmp_path, strike_at=(27, 20, "fill"), **RUN), status=2)
    assert "cannot write the checkpoint" in said and "Is the disk full?" in said
    assert tiny.steps(tmp_path / "run") == (0, 20)
    assert "goes on after step 20" in tiny.finish(tiny.start(tmp_path, **RUN))
    assert tiny.steps(tmp_path / "run")[-1] == 60
