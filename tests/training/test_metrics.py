"""Records: the numbers in them, and the file after a resume."""

import io
import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from iml.models.config import OPTConfig
from iml.training import flops, metrics


def steps(*loss_sums):
    return [
        {
            "loss_sum": np.float32(loss),
            "target_tokens": np.float32(10 * (number + 1)),
            "tokens": np.float32(80),
            "positions": np.float32(100),
            "benchmark_loss_sum": np.array([loss, 0], np.float32),
            "benchmark_tokens": np.array([10 * (number + 1), 0], np.float32),
            "grad_norm": np.float32(number + 1),
            "learning_rate": np.float32(0.25 * (number + 1)),
        }
        for number, loss in enumerate(loss_sums)
    ]


def test_a_record_weighs_steps_by_their_targets():
    record = metrics.summarise(steps(20.0, 10.0), 7, 4.0, 1.0, ["flan", "t5"], 6.0, 1000.0)
    assert record["loss"] == pytest.approx(30 / 30)
    assert record["benchmark_loss"] == {"flan": pytest.approx(1.0)}
    assert record["tokens_per_second"] == pytest.approx(160 / 4)
    assert record["target_tokens_per_second"] == pytest.approx(30 / 4)
    assert (record["fill"], record["input_wait"], record["step_seconds"]) == (0.8, 0.25, 2.0)
    assert (record["grad_norm"], record["learning_rate"], record["step"]) == (1.5, 0.5, 7)
    assert record["mfu"] == pytest.approx(200 * 6 / 4 / 1000)
    assert "mfu" not in metrics.summarise(steps(1.0), 1, 1.0, 0.0, ["flan", "t5"], 6.0, None)


@pytest.mark.parametrize(("terminal", "bucket"), [(False, False), (True, False), (False, True)])
def test_records_go_on_without_duplicates(tmp_path, terminal, bucket, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if bucket:  # A folder stands in for it: there is no other at hand.
        monkeypatch.setattr(
            metrics.epath, "Path", lambda path: pathlib.Path(tmp_path, path.removeprefix("gs://"))
        )

    def record(step):
        return metrics.summarise(steps(float(step)), step, 1.0, 0.0, ["flan", "t5"], 1.0, None)

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=200)
    run_dir = "gs://bucket/run" if bucket else tmp_path / "bucket" / "run"
    writer = metrics.Writer(run_dir, 0, 40, console)
    for step in (10, 20, 30):
        writer.write(record(step))
    writer.flush()
    path = tmp_path / "bucket" / "run" / "metrics.jsonl"
    # Before the end as well, and however short ago the bucket had its last copy.
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]
    writer.close()
    path.write_text(path.read_text() + '{"step": 40, "lo')
    writer = metrics.Writer(run_dir, 20, 40, console)
    writer.write(record(30))
    writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]
    assert "loss" in shown.getvalue() and "30" in shown.getvalue()
    assert list((path.parent / "tensorboard").iterdir()) and not (tmp_path / "gs:").exists()


def test_flops_of_opt_125m_are_those_of_its_matrices():
    config = OPTConfig()
    matrices = config.vocab_size * 768 + 12 * (4 * 768**2 + 2 * 768 * 3072)
    expected = 6 * matrices + 6 * 12 * 768 * 2048
    assert flops.flops_per_token(config, 2048) == pytest.approx(expected, rel=2e-3)
    tenth = flops.flops_per_token(config, 2048, learnt=0.1)
    assert tenth == pytest.approx(expected - 6 * 0.9 * config.vocab_size * 768, rel=2e-3)
    assert flops.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert flops.peak_flops("TPU v5 lite") == 197e12
    assert flops.peak_flops("cpu") is None
