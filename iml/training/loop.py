"""The training loop: steps, records and checkpoints, from wherever the run stands."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from rich.console import Console

from iml.data.stream import StreamState, TrainStream
from iml.models.opt import OPT
from iml.training import (
    checkpoints,
    distributed,
    feed,
    flops,
    loss_scale,
    metrics,
    optimizer,
    partition,
    preemption,
    step,
)
from iml.training.distributed import REQUEUE
from iml.training.fused import make_step
from iml.training.packed import Packing
from iml.training.rules import PartitionRules
from iml.training.tuning import Tuning, join

#: Steps that the devices may lag behind the host.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run is made of.

    Attributes:
      model: the model.
      stream: its data.
      mesh: the device mesh.
      layout: where the state lies on it.
      rules: which axis of a parameter is split over which axis of the mesh.
      tuning: which parameters are trained.
      optimizer: the optimiser's settings.
      loss_chunk: positions of a device whose logits are held at a time; None or 0 for all.
      loss_scale: how the loss is scaled in float16, else None.
      microbatches: parts of each batch, computed one after the other.
      steps: steps of the whole run.
      seed: of dropout and of initial parameters.
      run_dir: the run's folder.
      checkpoint_period: steps between checkpoints; one is also written at the end.
      keep: checkpoints kept; None for all.
      log_period: steps between records.
      data_threads: threads that make batches.
      meta: what every checkpoint says besides step and stream: model, fingerprints, gin text.
      watch: over the other processes of the run.
      packing: what the model sees of a row's documents.
      evaluate: evaluates all parameters at a step, and gives scores to record; it calls its third argument now and
        then, whose exception ends it. None for no evaluation.
      eval_period: steps between evaluations; the untuned model and the last step are evaluated too.
    """

    model: OPT
    stream: TrainStream
    mesh: jax.sharding.Mesh
    layout: step.Layout
    rules: PartitionRules
    tuning: Tuning
    optimizer: optimizer.AdamConfig | optimizer.Lomo
    loss_chunk: int | None
    loss_scale: loss_scale.LossScale | None
    microbatches: int
    steps: int
    seed: int
    run_dir: str
    checkpoint_period: int
    keep: int | None
    log_period: int
    data_threads: int
    meta: Mapping[str, Any]
    watch: distributed.Watch | None = None
    packing: Packing = Packing()  # noqa: RUF009 (frozen)
    evaluate: Callable[[int, Any, Callable[[], None]], Mapping[str, float]] | None = None
    eval_period: int | None = None

    def make_optimizer(self):
        trained, _ = self.tuning.split(self.model.logical_axes())
        return optimizer.make_optimizer(self.optimizer, self.steps, trained, self.loss_scale)


class Trainer:
    """Runs a training run to its end, or until it is asked to stop."""

    def __init__(
        self, setup: Setup, state: step.TrainState, frozen: Any, stream_state: StreamState, console: Console
    ):
        """
        Args:
          setup: the run.
          state: where it stands; its arrays are taken over.
          frozen: the parameters that are not trained.
          stream_state: where its stream stands.
          console: where to show progress.
        """
        self._setup, self._state, self._frozen = setup, state, frozen
        self._stream_state, self._console = stream_state, console
        self._stopping = False

    def run(self) -> metrics.Record:
        """Trains to the last step.

        Returns:
          The last record that was written, empty if there was nothing left to do.

        Raises:
          SystemExit: with `REQUEUE`, after a checkpoint, where the process was asked to end.
        """
        setup, done = self._setup, self._stream_state.step
        if done >= setup.steps:
            if not checkpoints.complete_steps(setup.run_dir):
                with contextlib.closing(checkpoints.Checkpoints(setup.run_dir, setup.keep)) as keeper:
                    checkpoints.save_frozen(setup.run_dir, self._frozen)
                    self._save(keeper, done)
            if self._must_evaluate(done):
                # A run that was killed while its last step was evaluated.
                with _on_sigterm(self._stop), preemption.watching():
                    self._scores(done)
            return {}
        train_step = compile_step(setup)
        key = jax.random.key(setup.seed)
        keeper = checkpoints.Checkpoints(setup.run_dir, setup.keep)
        log = _Log(setup, done, self._console)
        in_flight: collections.deque[Any] = collections.deque()
        batches = feed.feed(setup.stream, self._stream_state, setup.mesh, setup.data_threads)
        try:
            with _on_sigterm(self._stop), preemption.watching(), distributed.together(setup.watch):
                # One that is gone on with at step 0 has its checkpoint.
                if done == 0 and not checkpoints.complete_steps(setup.run_dir):
                    checkpoints.save_frozen(setup.run_dir, self._frozen)
                    # What evaluation compares with; and a folder that cannot be written to is found out now.
                    self._save(keeper, 0)
                self._evaluate(done, log)
                for fed in batches:
                    # Waiting costs nothing as long as the devices have work.
                    starved = not in_flight or in_flight[-1].is_ready()
                    self._state, result = train_step(self._state, self._frozen, fed.batch, key)
                    self._stream_state, done = fed.after, done + 1
                    log.add(result, fed.waited if starved else 0.0)
                    in_flight.append(result["loss_sum"])
                    if len(in_flight) > _AHEAD:
                        in_flight.popleft().block_until_ready()
                    stopping = self._must_stop(done)
                    last = done == setup.steps or stopping
                    if done % setup.log_period == 0 or last:
                        log.end_window(done)
                    evaluated = not stopping and self._must_evaluate(done)
                    # What is evaluated is kept, so that nothing is lost if that is interrupted.
                    if done % setup.checkpoint_period == 0 or last or evaluated:
                        # What stands in a checkpoint must stand in the records too.
                        log.flush(done)
                        self._save(keeper, done)
                    if evaluated:
                        self._evaluate(done, log)
                    if last:
                        break
        finally:
            batches.close()
            try:
                keeper.close()
            finally:
                log.close()
        if stopping and done < setup.steps:
            if jax.process_index() == 0:
                told = f"stopped after step {done}, saved; status {REQUEUE} asks for another start"
                self._console.print(told)
            raise SystemExit(REQUEUE)
        return log.last

    def _save(self, keeper: checkpoints.Checkpoints, done: int) -> None:
        whole = feed.gather_state(self._stream_state)
        meta = {**self._setup.meta, "step": done, "stream": whole.to_json(), "seed": self._setup.seed}
        keeper.save(done, self._state.params, self._state.opt_state, meta)

    def _must_evaluate(self, done: int) -> bool:
        setup = self._setup
        if setup.evaluate is None or setup.eval_period is None:
            return False
        return done % setup.eval_period == 0 or done == setup.steps

    def _evaluate(self, done: int, log: _Log) -> None:
        """Evaluates where that is due; what a run before this one has evaluated is only read."""
        if self._must_evaluate(done):
            began = time.monotonic()
            log.add_scores(done, self._scores(done), time.monotonic() - began)

    def _scores(self, done: int) -> Mapping[str, float]:
        """Evaluates; ends with `REQUEUE` where the process is asked to end, for the checkpoint is there already.

        With several processes the evaluation runs to its end: they would have to agree on where it stops.
        """

        def heed() -> None:
            if self._stopping:
                told = f"stopped in the evaluation of step {done}; status {REQUEUE} asks for another start"
                self._console.print(told)
                raise SystemExit(REQUEUE)

        return self._setup.evaluate(done, join(self._state.params, self._frozen), heed)

    def _stop(self) -> None:
        self._stopping = True

    def _must_stop(self, done: int) -> bool:
        """Whether to end after this step; all processes agree."""
        if jax.process_count() == 1:
            return self._stopping
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(done)


def compile_step(setup: Setup):
    """The run's step, as `step.make_train_step` gives it."""
    stream, names = setup.stream, benchmark_names(setup.stream)
    return make_step(
        setup.model,
        setup.optimizer,
        setup.make_optimizer(),
        setup.steps,
        setup.layout,
        setup.mesh,
        setup.microbatches,
        [names.index(stream.store.tasks[task].card.benchmark) for task in stream.tasks],
        len(names),
        setup.loss_chunk,
        setup.packing,
    )


def benchmark_names(stream: TrainStream) -> list[str]:
    """The benchmarks that a stream draws from, sorted."""
    return sorted({stream.store.tasks[task].card.benchmark for task in stream.tasks})


class _Log:
    """Collects metrics on the devices and fetches a window's only when the next one has ended."""

    def __init__(self, setup: Setup, done: int, console: Console):
        self.last: metrics.Record = {}
        self._names, self._loss_scale = benchmark_names(setup.stream), setup.loss_scale
        stream = setup.stream
        learnt = (stream.limits.targets or stream.length) / stream.length
        self._flops = flops.flops_per_token(setup.model.config, stream.length, learnt, setup.tuning.settings)
        peak = flops.peak_flops(jax.devices()[0].device_kind)
        self._peak = peak * jax.device_count() if peak else None
        # Every process has the metrics; one writes them.
        self._writer = (
            metrics.Writer(setup.run_dir, done, setup.steps, console) if jax.process_index() == 0 else None
        )
        self._window: list[Any] = []
        self._ended: tuple[Any, ...] | None = None
        self._waited, self._began = 0.0, time.monotonic()

    def add(self, result: Mapping[str, jax.Array], waited: float) -> None:
        self._window.append(result)
        self._waited += waited

    def end_window(self, done: int) -> None:
        self._write_ended()
        if self._window:
            now = time.monotonic()
            self._ended = (self._window, done, now - self._began, self._waited)
            self._window, self._waited, self._began = [], 0.0, now

    def flush(self, done: int) -> None:
        self.end_window(done)
        self._write_ended()
        if self._writer:
            self._writer.flush()

    def _write_ended(self) -> None:
        if self._ended is None:
            return
        window, done, seconds, waited = self._ended
        self._ended = None
        if self._writer:
            fetched = jax.device_get(window)
            loss_scale.check_learning(fetched, self._loss_scale)
            self.last = metrics.summarise(
                fetched, done, seconds, waited, self._names, self._flops, self._peak
            )
            self._writer.write(self.last)

    def add_scores(self, done: int, scores: Mapping[str, float], seconds: float) -> None:
        """Scores of an evaluation, whose time is no part of the window's."""
        if self._writer:
            self._writer.write_scores(done, scores)
        self._began += seconds

    def close(self) -> None:
        if self._writer:
            self._writer.close()


@contextlib.contextmanager
def _on_sigterm(stop) -> Iterator[None]:
    """Calls `stop` on SIGTERM; with several processes JAX's preemption service listens instead."""
    if jax.process_count() > 1:
        yield
        return
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: stop())
    except ValueError:  # Not in the main thread, where the caller keeps its signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_params(setup: Setup, init_from: str | None) -> Any:
    """The model's parameters that a run begins with, trained and frozen ones, on the mesh.

    Args:
      init_from: None for random ones, or a folder of iml (run, checkpoint, parameters), of Hugging Face's OPT or,
        where adapters are trained, of PEFT.

    Raises:
      InputError: the folder is neither, or belongs to a model of another shape.
    """
    shardings = setup.layout.params_shardings
    key = jax.random.fold_in(jax.random.key(setup.seed), 0x1517)
    if init_from is None:
        return jax.jit(setup.model.init, out_shardings=shardings)(key)
    from iml.training import initial

    if setup.model.lora is None:
        return initial.read_params(init_from, setup.model, shardings)
    plain = OPT(setup.model.config, platform="cpu")
    plain_shardings = partition.shard_params(
        plain.abstract_params(), plain.logical_axes(), setup.rules, setup.mesh
    )
    # What only the frozen parameters need is not computed.
    fresh = jax.jit(
        lambda key: setup.tuning.split(setup.model.init(key))[0], out_shardings=setup.layout.shardings.params
    )
    return initial.read_adapted(
        init_from, setup.model, plain_shardings, shardings, functools.partial(fresh, key)
    )


def begin(setup: Setup, init_from: str | None) -> tuple[step.TrainState, Any]:
    """The state of a run that begins, and its frozen parameters; `init_from` as in `start_params`."""
    trained, frozen = setup.tuning.split(start_params(setup, init_from))
    return step.begin(setup.layout, setup.make_optimizer(), trained), frozen


def restore(setup: Setup) -> tuple[step.TrainState, Any, StreamState] | None:
    """Where a run stands by its latest complete checkpoint: state, frozen parameters, and the stream's state.

    None where it has no checkpoint.

    Raises:
      InputError: the checkpoint is damaged, or of other settings.
    """
    steps = checkpoints.complete_steps(setup.run_dir)
    if not steps:
        return None
    meta = checkpoints.read_meta(setup.run_dir, steps[-1])
    folder = f"{setup.run_dir}/checkpoints/{steps[-1]}"
    saved = {"optimizer": _kind_of_optimizer(folder)} | meta["fingerprints"]
    checkpoints.check_fingerprints(folder, saved, setup.meta["fingerprints"])
    placed = setup.layout.placed
    params, opt_state = checkpoints.restore_state(setup.run_dir, steps[-1], placed.params, placed.opt_state)
    state = step.resume(setup.layout, steps[-1], params, opt_state)
    frozen = checkpoints.restore_frozen(setup.run_dir, setup.layout.frozen)
    stream_state = StreamState.from_json(meta["stream"])
    lanes = partition.local_lanes(setup.mesh, setup.stream.batch_size)
    return state, frozen, StreamState(stream_state.step, {lane: stream_state.lanes[lane] for lane in lanes})


def _kind_of_optimizer(folder: str) -> str:
    """That of a checkpoint which does not name it: LOMO alone has no state."""
    kind = optimizer.AdamConfig if checkpoints.has_opt_state(folder) else optimizer.Lomo
    return kind.__name__
