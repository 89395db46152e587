"""What a run reports, and where to: JSON lines, TensorBoard, the terminal."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

Record = dict[str, Any]

#: Seconds between two copies of the records to a bucket.
_COPY_PERIOD = 60.0


def summarise(
    window: Sequence[Mapping[str, np.ndarray]],
    step: int,
    seconds: float,
    waiting: float,
    benchmarks: Sequence[str],
    flops_per_position: float,
    peak_flops: float | None,
) -> Record:
    """One record for the steps of a log window.

    Args:
      window: metrics of its steps, as `step.make_train_step` gives them.
      step: steps done at its end.
      seconds: wall-clock time it took.
      waiting: seconds of these in which the devices' next batch was not there yet.
      benchmarks: their names, in the order of the metrics.
      flops_per_position: of the training step.
      peak_flops: of all devices together, where the chip is known.

    Returns:
      A JSON-able record. `loss` is per target token over the whole window, `grad_norm` a mean.
    """
    total = {
        name: np.sum([np.asarray(one[name], np.float64) for one in window], axis=0) for name in window[0]
    }
    seconds = max(seconds, 1e-9)
    record: Record = {
        "step": step,
        "loss": float(total["loss_sum"] / max(total["target_tokens"], 1)),
        "learning_rate": float(window[-1]["learning_rate"]),
        # Steps that overflow under loss scaling have none.
        "grad_norm": float(total["grad_norm"] / max(len(window) - total.get("skipped", 0.0), 1)),
        "tokens_per_second": float(total["tokens"] / seconds),
        "target_tokens_per_second": float(total["target_tokens"] / seconds),
        "fill": float(total["tokens"] / total["positions"]),
        "step_seconds": seconds / len(window),
        "input_wait": min(1.0, waiting / seconds),
        "target_tokens": int(total["target_tokens"]),
        "benchmark_loss": {
            name: float(loss / count)
            for name, loss, count in zip(
                benchmarks, total["benchmark_loss_sum"], total["benchmark_tokens"], strict=True
            )
            if count
        },
    }
    if "loss_scale" in total:
        record |= {"loss_scale": float(window[-1]["loss_scale"]), "skipped": int(total["skipped"])}
    if peak_flops:
        record["mfu"] = float(total["positions"]) * flops_per_position / seconds / peak_flops
    return record


class Writer:
    """Writes records to `metrics.jsonl`, to `tensorboard/` and to the terminal."""

    def __init__(self, run_dir: str | os.PathLike[str], step: int, steps: int, console: Console):
        """
        Args:
          run_dir: the run's folder. A bucket's files cannot be added to: there, the records are kept in a local
            folder and copied whole, at most once a minute, on `flush` and at the end.
          step: steps already done; records beyond it, of a run that was killed, are taken out.
          steps: steps of the whole run.
          console: where to show them: a live view on a terminal, else a line for each record.
        """
        self._bucket = epath.Path(run_dir) if "://" in os.fspath(run_dir) else None
        self._copied = float("-inf")
        folder = pathlib.Path(tempfile.mkdtemp(prefix="iml-metrics-") if self._bucket else run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if self._bucket and (self._bucket / "metrics.jsonl").exists():
            (folder / "metrics.jsonl").write_bytes((self._bucket / "metrics.jsonl").read_bytes())
        self._folder = folder
        _truncate(folder / "metrics.jsonl", step)
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = _summary_writer(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._steps, self._first, self._began = steps, step, time.monotonic()
        self._console = console
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        if self._live:
            self._live.start()

    def write(self, record: Record) -> None:
        """Writes one record everywhere."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if isinstance(value, Mapping):
                for part, number in value.items():
                    self._board.add_scalar(f"{name}/{part}", number, record["step"])
            elif name != "step":
                self._board.add_scalar(name, value, record["step"])
        if time.monotonic() > self._copied + _COPY_PERIOD:
            self._copy()
        done = record["step"] - self._first
        left = (time.monotonic() - self._began) / max(done, 1) * (self._steps - record["step"])
        if self._live:
            self._live.update(_table(record, self._steps, left))
        else:
            self._console.print(
                _line(record, self._steps, left), soft_wrap=True, highlight=False, markup=False
            )

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes the scores of an evaluation at a step to `tensorboard/`."""
        for name, score in scores.items():
            self._board.add_scalar(f"evaluation/{name}", score, step)

    def flush(self) -> None:
        """Sees to it that what was written stands in the run's folder."""
        self._copy()

    def close(self) -> None:
        if self._live:
            self._live.stop()
        self._board.close()
        self._file.close()
        self._copy()

    def _copy(self) -> None:
        """Copies the records to the bucket, where there is one."""
        if self._bucket is None:
            return
        self._copied = time.monotonic()
        self._board.flush()
        for file in self._folder.rglob("*"):
            if file.is_file():
                target = self._bucket / str(file.relative_to(self._folder))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


def _summary_writer(folder: str, **options: Any) -> Any:
    """A tensorboardX writer, without the PyTorch that tensorboardX loads wherever it is installed."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # An import then fails as if it were not installed.
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del sys.modules["torch"]
    return SummaryWriter(folder, **options)


def _truncate(path: pathlib.Path, step: int) -> None:
    """Takes out records beyond a step, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)


def _line(record: Record, steps: int, left: float) -> str:
    mfu = f" | mfu {record['mfu']:.1%}" if "mfu" in record else ""
    return (
        f"step {record['step']}/{steps} | loss {record['loss']:.4f} | lr {record['learning_rate']:.2e}"
        f" | grad norm {record['grad_norm']:.2f} | {record['tokens_per_second']:,.0f} tokens/s"
        f" ({record['target_tokens_per_second']:,.0f} target) | fill {record['fill']:.1%}"
        f" | input wait {record['input_wait']:.1%}{mfu} | {_span(left)} left"
    )


def _table(record: Record, steps: int, left: float) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("step", f"{record['step']} of {steps}, {_span(left)} left")
    table.add_row("", ProgressBar(total=steps, completed=record["step"], width=40))
    table.add_row("loss", f"{record['loss']:.4f}")
    for name, loss in record["benchmark_loss"].items():
        table.add_row(f"  {name}", f"{loss:.4f}")
    table.add_row("learning rate", f"{record['learning_rate']:.3e}")
    table.add_row("gradient norm", f"{record['grad_norm']:.3f}")
    table.add_row(
        "tokens/s", f"{record['tokens_per_second']:,.0f} ({record['target_tokens_per_second']:,.0f} target)"
    )
    table.add_row("fill", f"{record['fill']:.1%}")
    table.add_row(
        "step time", f"{record['step_seconds']:.3f} s, {record['input_wait']:.1%} waiting for input"
    )
    if "mfu" in record:
        table.add_row("MFU", f"{record['mfu']:.1%}")
    return table


def _span(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(max(seconds, 0))))
