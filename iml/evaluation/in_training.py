"""Evaluation inside a training run: at a period, of the parameters as they lie on the run's mesh.

The results of step N stand in `<run>/evaluation/<N>`, as if its checkpoint had been evaluated.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax

from iml.bench.levels import LEVELS
from iml.data.store import ExampleStore
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.evaluation import requests
from iml.evaluation.engines.loading import LoadedModel
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.evaluation.header import make_header
from iml.evaluation.progress import watched
from iml.evaluation.reports import report
from iml.evaluation.results import efficiency
from iml.evaluation.results.mirror import mirrored
from iml.evaluation.results.result import Result
from iml.evaluation.results.results_folder import read_efficiency
from iml.evaluation.runner import Runner
from iml.evaluation.scores import aggregation
from iml.evaluation.suites import Suite
from iml.models.opt import OPT, Params

if TYPE_CHECKING:
    from rich.console import Console

FOLDER = "evaluation"


@dataclasses.dataclass
class InTraining:
    """Evaluates a model at steps of its training; compiles once.

    Attributes:
      suite: what is asked.
      store: holds the tasks.
      vocabulary: the run's.
      opt: the model, as it is trained.
      mesh: where its parameters lie.
      run_dir: the run's folder.
      seed: draws rows, delimiters and demonstrations; that of `iml.evaluate` for equal questions.
      batch_size: sequences of the model's length that a batch may weigh.
      console: where to tell of it.
    """

    suite: Suite
    store: ExampleStore
    vocabulary: Vocabulary
    opt: OPT
    mesh: jax.sharding.Mesh
    run_dir: str
    seed: int
    batch_size: int
    console: Console

    def __post_init__(self):
        self._selected = requests.select(self.store, self.suite, self.seed)
        self._missing = requests.missing(self.store, self.suite)
        self._engine: OPTEngine | None = None
        lacking = self._missing | requests.unscorable(self.store, self._selected, self.suite)
        for what, reason in lacking.items() if jax.process_index() == 0 else ():
            self.console.print(f"missing: {what}: {reason}", markup=False, highlight=False, soft_wrap=True)

    def __call__(
        self, step: int, params: Params, heed: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Evaluates; what a killed evaluation of the same step answered is not asked again.

        All processes of the run call it together; the first one writes.

        Args:
          step: the parameters' step.
          params: all of the model's.
          heed: called by the first process after every answer that is kept; what it raises ends the evaluation.

        Returns:
          Mean scores by level and number of shots, for the records; {} in other processes than the first.

        Raises:
          InputError: every task failed.
        """
        folder = os.path.join(self.run_dir, FOLDER, str(step))  # noqa: PTH118 (may be a bucket)
        with mirrored(folder, jax.process_index() == 0) as local:
            return self._evaluate(step, params, local, heed)

    def _evaluate(self, step: int, params: Params, folder: str, heed: Callable[[], None]) -> dict[str, float]:
        """As `__call__`, into a local folder."""
        clock = efficiency.Clock()
        with clock.phase("load"):
            engine = self._load(params)
        name = os.path.join(self.run_dir, "checkpoints", str(step))  # noqa: PTH118
        header = make_header(engine, name, self.store, self.suite, self.seed)
        first = jax.process_index() == 0
        process = (jax.process_index(), jax.process_count())
        with clock.phase("answer"):
            runner = Runner(engine, self.store, self.suite, self.seed, name, process)
            if first:
                with watched(self.console, heed) as watch:
                    outcome = runner.run(self._selected, folder, header, watch)
            else:
                outcome = runner.run(self._selected, folder, header)
        if not first:
            return {}
        if not outcome.predictions:
            task, reason = next(iter(outcome.failures.items()))
            raise InputError(f"every task of the evaluation failed, {task} for one: {reason}", path=folder)
        with clock.phase("score"):
            scores = aggregation.aggregate(
                outcome.predictions,
                {task: self.suite.scored(entry.card) for task, entry in self.store.tasks.items()},
                {task: selected.level for task, selected in self._selected.items()},
                header,
                {**self._missing, **outcome.failures},
            )
        scores["missing"] = sorted(self._missing)
        scores["efficiency"] = efficiency.summary(read_efficiency(folder), clock)
        report.write_scores(folder, scores)
        report.write_report(folder, [Result(f"step {step}", scores, outcome.predictions, folder)])
        found = {
            f"{level}/{shots}-shot": cell["mean"]
            for level in LEVELS
            for shots, cell in scores["levels"].get(level, {}).items()
            if shots != aggregation.AVERAGE and cell["mean"] is not None
        }
        told = ", ".join(f"{where.replace('_', ' ')} {mean:.1f}" for where, mean in found.items())
        self.console.print(
            f"evaluation of step {step}: {told}", markup=False, highlight=False, soft_wrap=True
        )
        return found

    def _load(self, params: Params) -> OPTEngine:
        if self._engine is None:
            length = self.opt.config.max_positions
            model = LoadedModel(self.opt, params, self.vocabulary, self.mesh, length, self.batch_size)
            self._engine = OPTEngine(model)
        else:
            self._engine.load(params)
        return self._engine
