"""Evaluates a model on the tasks of an example store, and reports by level, category and task.

    python -m iml.evaluate --suite=default --gin.MODEL=runs/first --gin.STORE_DIR=store \\
        --gin.OUTPUT_DIR=runs/first/evaluation

Writes results.jsonl, scores.json, report.md and report.html into the output folder. A run that was killed
goes on with the tasks that it lacks. Several processes may evaluate together, as they train. With
--all_checkpoints every checkpoint of the run MODEL is evaluated, and the curve over training is drawn.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iml import configuration
from iml.console import print_table
from iml.data import prompts
from iml.data.settings import plain
from iml.errors import InputError
from iml.evaluation.engines import backends
from iml.evaluation.engines.backends import Backend, CompletionEndpoint, TransformersModel
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.opening import Engines
from iml.evaluation.header import make_header
from iml.evaluation.results.mirror import mirrored
from iml.evaluation.suites import Suite
from iml.training import distributed as processes
from iml.training.mesh import MeshConfig
from iml.training.rules import PartitionRules

if TYPE_CHECKING:
    from rich.console import Console

    from iml.data.store import ExampleStore
    from iml.evaluation.engines.engine import Engine
    from iml.evaluation.requests import Selected


FLAGS = {
    "all_checkpoints": "evaluate every checkpoint of the run MODEL and draw the curve over training",
    **processes.FLAGS,
}
CONFIGURABLES = (
    Suite,
    Decoding,
    *backends.CONFIGURABLES,
    *prompts.CONFIGURABLES,
    MeshConfig,
    PartitionRules,
)


def evaluate(
    model: str | TransformersModel | CompletionEndpoint,
    store_dir: str,
    output_dir: str,
    suite: Suite = Suite(),  # noqa: B008 (frozen)
    vocabulary_dir: str | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    bos: bool = False,
    dtype: str | None = None,
    mesh: MeshConfig = MeshConfig(),  # noqa: B008
    rules: PartitionRules = PartitionRules(),  # noqa: B008
    seed: int = 1234,
    compare: Sequence[str] = (),
    seqio_modules: Sequence[str] = (),
    data_dir: str = "",
    compilation_cache: str | None = None,
    all_checkpoints: bool = False,
    dry_run: bool = False,
    distributed: bool = False,
    coordinator_address: str | None = None,
    num_processes: str | None = None,
    process_id: str | None = None,
) -> dict[str, Any]:
    """Evaluates.

    Args:
      model: a run of iml.train (its latest checkpoint), one of its checkpoints, a directory of parameters,
        or a Hugging Face directory of OPT; or any other model, run by transformers or behind an endpoint, which
        settles for itself what follows from `vocabulary_dir` to `rules`.
      store_dir: the example store that iml.prepare wrote.
      output_dir: folder of the results; what it holds of the same evaluation is gone on with.
      suite: what is asked.
      vocabulary_dir: folder of the BPE's two files; None for the one kept beside the model.
      batch_size: sequences of `max_length` that a batch may weigh; of shorter ones it holds more.
      max_length: longest sequence in positions, answer included; None for the model's.
      bos: begin every sequence with </s>, as Hugging Face's OPT tokenizer does and metaseq's does not.
      dtype: computation, "float32" or "bfloat16"; None for the model's own.
      mesh: the device mesh.
      rules: which axis of a parameter is split over which axis of the mesh.
      seed: draws rows, delimiters and demonstrations.
      compare: result folders of other evaluations, which the report sets beside this one.
      seqio_modules: modules that register tasks with SeqIO metrics of their own, which are computed as well.
      data_dir: the folder of the task files, handed to these modules.
      compilation_cache: a folder in which compiled programs are kept for later evaluations; None for none.
      all_checkpoints: evaluate every checkpoint of the run `model` into a folder of `output_dir` that is called
        by its step, but for those that are there already, and draw the curve over training.
      dry_run: print what would be asked.
      distributed: see `--help`.
      coordinator_address: see `--help`.
      num_processes: see `--help`.
      process_id: see `--help`.

    Returns:
      What `scores.json` holds, or with `all_checkpoints` what `curve.json` holds; {} in all but the first of
      several processes.

    Raises:
      InputError: a setting or a file is wrong, or every task failed.
    """
    several = distributed or coordinator_address or num_processes or process_id
    if several and (seqio_modules or isinstance(model, Backend)):
        raise InputError(
            "several processes evaluate by the project's own engine, without SeqIO's metrics",
            field="--distributed" if distributed else "--coordinator_address",
        )
    if isinstance(model, CompletionEndpoint):
        suite = suite.without_eos()
    if compilation_cache is not None:
        _keep_programs(compilation_cache)
    one = functools.partial(
        _evaluate_one,
        engines=Engines(vocabulary_dir, mesh, max_length, batch_size, bos, dtype, rules),
        store_dir=store_dir,
        suite=suite,
        seed=seed,
        compare=compare,
        seqio_modules=seqio_modules,
        data_dir=data_dir,
        dry_run=dry_run,
    )
    watch = processes.join_by_flags(distributed, coordinator_address, num_processes, process_id)
    with processes.together(watch):
        process = (0, 1) if watch is None else processes.numbered()
        one = functools.partial(one, process=process)
        with mirrored(output_dir, process[0] == 0 and not dry_run) as folder:
            if all_checkpoints:
                given = {"bos": bos, "dtype": dtype, "max_length": max_length, "seed": seed}
                found = _evaluate_all(one, model, store_dir, folder, suite, given, dry_run, process[0])
            else:
                found = one(model, folder)
        return _tell(found, output_dir, "curve" if all_checkpoints else "report")


def _tell(found: dict[str, Any], output_dir: str, what: str) -> dict[str, Any]:
    """Tells where the page of what was found lies, if anything was."""
    from iml.evaluation.reports import curve_report, report

    if found:
        page = {"report": report.PAGE, "curve": curve_report.PAGE}[what]
        print(f"{what}: {os.path.join(output_dir, page)}")  # noqa: PTH118 (may be a bucket)
    return found


def _evaluate_one(
    model: str | TransformersModel | CompletionEndpoint,
    output_dir: str,
    engines: Engines,
    store_dir: str,
    suite: Suite,
    seed: int,
    compare: Sequence[str],
    seqio_modules: Sequence[str],
    data_dir: str,
    dry_run: bool,
    process: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Evaluates one model; `process` as for `runner.Runner`, everything else as for `evaluate`."""
    from rich.console import Console

    from iml.data.store import ExampleStore
    from iml.evaluation import requests
    from iml.evaluation.reports import report
    from iml.evaluation.results import efficiency
    from iml.evaluation.results.result import Result
    from iml.evaluation.results.results_folder import read_efficiency
    from iml.evaluation.scores import aggregation

    console = Console(quiet=process[0] > 0)
    store = ExampleStore(store_dir)
    selected, missing = requests.select(store, suite, seed), requests.missing(store, suite)
    for what, reason in {**missing, **requests.unscorable(store, selected, suite)}.items():
        console.print(f"missing: {what}: {reason}", markup=False, highlight=False, soft_wrap=True)
    _describe(console, store, selected, suite, every_task=dry_run)
    if dry_run:
        console.print(configuration.operative(), markup=False, highlight=False)
        return {}

    clock = efficiency.Clock()
    titles = report.name_results([*map(os.fspath, compare), os.fspath(output_dir)])
    earlier = [report.read_result(folder, title) for folder, title in zip(compare, titles, strict=False)]
    with clock.phase("load"):
        engine = engines.open(model)
        name = model.name if isinstance(model, Backend) else os.fspath(model)
        header = make_header(engine, name, store, suite, seed)
    with clock.phase("answer"):
        outcome = _run(console, engine, store, suite, seed, name, selected, output_dir, header, process)
    if process[0] > 0:
        return {}
    for name, reason in outcome.failures.items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
    if not outcome.predictions:
        name, reason = next(iter(outcome.failures.items()))
        raise InputError(f"every task failed, {name} for one: {reason}", path=store_dir)
    with clock.phase("score"):
        scores = aggregation.aggregate(
            outcome.predictions,
            {name: suite.scored(entry.card) for name, entry in store.tasks.items()},
            {name: task.level for name, task in selected.items()},
            header,
            {**missing, **outcome.failures},
        )
        scores["missing"] = sorted(missing)
        if seqio_modules:
            scores["seqio"] = _seqio_scores(seqio_modules, data_dir, outcome.predictions, engine)
        scores["comparisons"] = {
            old.folder: _compare((old.scores, old.predictions), (scores, outcome.predictions))
            for old in earlier
        }
    scores["efficiency"] = efficiency.summary(read_efficiency(output_dir), clock)
    report.write_scores(output_dir, scores)
    results = [*earlier, Result(titles[-1], scores, outcome.predictions, os.fspath(output_dir))]
    report.write_report(output_dir, results)
    report.print_summary(results, console)
    return scores


def _evaluate_all(
    one: Callable[..., Any],
    model: str | TransformersModel | CompletionEndpoint,
    store_dir: str,
    output_dir: str,
    suite: Suite,
    given: Mapping[str, Any],
    dry_run: bool,
    process: int,
) -> dict[str, Any]:
    """Every checkpoint of a run, and the curve over them; {} in other processes than the first."""
    from iml.data.store import ExampleStore
    from iml.evaluation.reports import curve_report
    from iml.training.checkpoints import complete_steps

    steps = () if isinstance(model, Backend) else processes.agreed(complete_steps(model))
    if not steps:
        problem = "--all_checkpoints needs the folder of a run with complete checkpoints"
        raise InputError(problem, path=None if isinstance(model, Backend) else model, field="evaluate.model")
    if dry_run:
        if process == 0:
            print(f"checkpoints: {', '.join(map(str, steps))}")
        return one(model, output_dir)
    asked = {name: value for name, value in given.items() if value is not None}
    asked |= {"suite": plain(suite), "store": ExampleStore(store_dir).fingerprint}
    curve = curve_report.evaluate_steps(
        os.fspath(model),
        output_dir,
        steps,
        asked,
        one,
        lambda text: print(text, flush=True),
        process,
    )
    if curve is None:
        return {}
    print(f"picked: step {curve.chosen}")
    return curve.to_json()


def _compare(first, second) -> dict[str, Any]:
    """The paired comparison with an earlier result, or why there is none."""
    from iml.evaluation.scores.comparison import compare

    try:
        return compare(first, second)
    except InputError as error:
        return {"problem": str(error)}


def _seqio_scores(modules: Sequence[str], data_dir: str, predictions, engine: Engine) -> dict[str, Any]:
    """The metrics that SeqIO tasks bring, by task and shots."""
    from iml.prepare import load_tasks
    from iml.seqio_scores import score_all

    load_tasks(modules, data_dir, strict=True)
    return score_all(predictions, engine)


def _keep_programs(folder: str) -> None:
    """Lets JAX keep compiled programs in a folder, and look there before it compiles."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _run(console, engine, store, suite, seed, path, selected, output_dir, header, process):
    """Answers all requests and tells how far that is."""
    from iml.evaluation.progress import watched
    from iml.evaluation.runner import Runner

    with watched(console) as watch:
        return Runner(engine, store, suite, seed, path, process).run(selected, output_dir, header, watch)


def _describe(
    console: Console, store: ExampleStore, selected: Mapping[str, Selected], suite: Suite, every_task: bool
) -> None:
    from rich.table import Table

    if every_task:
        table = Table("task", "category", "level", "split", "rows", "requests", title="tasks")
        for name, task in selected.items():
            rows = len(task.rows)
            category = store.tasks[name].card.category
            table.add_row(name, category, task.level, task.split, str(rows), str(rows * len(suite.shots)))
        print_table(console, table)
    table = Table("level", "tasks", "requests", title=f"suite {suite.name}")
    for level in suite.levels:
        tasks = [task for task in selected.values() if task.level == level]
        requests = sum(len(task.rows) for task in tasks) * len(suite.shots)
        table.add_row(level.replace("_", " "), str(len(tasks)), f"{requests:,}")
    print_table(console, table)


if __name__ == "__main__":
    configuration.run(
        evaluate,
        doc=__doc__,
        flags=FLAGS,
        presets={"suite": "evals"},
        configurables=CONFIGURABLES,
    )
