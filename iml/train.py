"""Instruction-tunes an OPT model on the tasks of an example store.

    python -m iml.train --gin_file=models/opt_125m.gin --gin_file=mixtures/opt_iml.gin \\
        --gin_file=runs/finetune.gin --gin.RUN_DIR=runs/first ...

A run goes on by itself from its latest complete checkpoint. On SIGTERM it saves and ends with status 75,
which asks for another start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from typing import TYPE_CHECKING, Any

from iml import configuration
from iml.bench import mixing
from iml.bench.mixing import Mixture
from iml.console import print_table
from iml.data import prompts
from iml.data.prompts import PromptFormat
from iml.data.settings import plain
from iml.errors import InputError
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.suites import Suite
from iml.models.config import OPTConfig
from iml.training import distributed as processes
from iml.training import tunings
from iml.training.loss_scale import LossScale, check_dtype
from iml.training.mesh import MeshConfig
from iml.training.optimizer import AdamConfig, Lomo, check_lomo
from iml.training.packed import Packing
from iml.training.rules import PartitionRules

if TYPE_CHECKING:
    from etils import epath
    from rich.console import Console
    from rich.table import Table

    from iml.bench.card import TaskCard
    from iml.data.stream import TrainStream
    from iml.training.loop import Setup

FLAGS = {
    "show_step": "print what the model sees at this step, counted from 0, and end",
    "cache_tokens": "keep the token ids of this many draws (default an epoch) in train.cache_dir, and end",
    "show_lanes": "with --show_step: rows of the batch to show, such as 0,1 (default 0)",
    "doctor": "examine the machine: devices, attention, leak probe, 20 timed steps; and end",
    **processes.FLAGS,
    "topology": "plan the run for these machines and end: v5p:4x4x4,v5e:16x16, or h200:8 for GPUs",
    "suggest": "with --topology: also rank meshes and remat policies",
    "output": "with --topology: write the plans there as JSON too",
}
#: Those that iml.precompile has.
PLANNING = ("topology", "suggest", "output")
CONFIGURABLES = (
    OPTConfig,
    *mixing.CONFIGURABLES,
    *prompts.CONFIGURABLES,
    AdamConfig,
    Lomo,
    LossScale,
    MeshConfig,
    PartitionRules,
    Packing,
    Suite,
    Decoding,
    *tunings.CONFIGURABLES,
)
#: Settings of the model with which a run may be gone on with: they change speed and memory.
FREE = ("remat", "attention", "init_std")
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "array-record")


def train(
    model: OPTConfig,
    store_dir: str,
    vocabulary_dir: str,
    run_dir: str,
    mixture: Mixture,
    steps: int,
    batch_size: int,
    length: int = 2048,
    init_from: str | None = None,
    tuning: tunings.Settings = None,
    prompt_format: PromptFormat = PromptFormat(),  # noqa: B008 (frozen)
    optimizer: AdamConfig | Lomo = AdamConfig(),  # noqa: B008
    loss_scale: LossScale | None = None,
    loss_chunk: int | None = 1024,
    mesh: MeshConfig = MeshConfig(),  # noqa: B008
    rules: PartitionRules = PartitionRules(),  # noqa: B008
    microbatches: int = 1,
    seed: int = 1234,
    checkpoint_period: int = 500,
    keep: int | None = 3,
    log_period: int = 10,
    data_threads: int = 2,
    segments: int = 64,
    target_budget: int | None = None,
    packing: Packing = Packing(),  # noqa: B008
    cache_dir: str | None = None,
    strict: bool = False,
    leak_probe: bool = True,
    eval_suite: Suite | None = None,
    eval_period: int | None = None,
    eval_batch_size: int = 8,
    dry_run: bool = False,
    show_step: str | None = None,
    show_lanes: str = "0",
    cache_tokens: str | bool | None = None,
    doctor: bool = False,
    distributed: bool = False,
    coordinator_address: str | None = None,
    num_processes: str | None = None,
    process_id: str | None = None,
    topology: str | None = None,
    suggest: bool = False,
    output: str | None = None,
) -> dict[str, Any]:
    """Trains, or goes on training.

    Args:
      model: the model.
      store_dir: the example store that iml.prepare wrote.
      vocabulary_dir: folder of the BPE's two files.
      run_dir: folder of the run; one that holds a run is gone on with.
      mixture: which tasks, and how much of each.
      steps: updates of the whole run; 0 writes the untuned model and ends.
      batch_size: packed rows in a batch, over all devices and microbatches.
      length: positions of a row.
      init_from: None for random parameters, or a folder of iml or of Hugging Face's OPT; with LoRA also one
        of PEFT, whose adapters are gone on with.
      tuning: None trains all parameters; else which of them.
      prompt_format: how examples become prompts.
      optimizer: the optimiser.
      loss_scale: how the loss is scaled in float16, which needs it; None otherwise.
      loss_chunk: positions of a device whose logits are held at a time; None or 0 for all of a microbatch.
      mesh: the device mesh.
      rules: which axis of a parameter is split over which axis of the mesh.
      microbatches: parts of a batch that are computed one after the other, to save memory.
      seed: of the stream, of dropout and of random parameters.
      checkpoint_period: steps between checkpoints.
      keep: checkpoints kept; None for all.
      log_period: steps between records.
      data_threads: threads that make batches; they change nothing but speed.
      segments: documents that a row may hold.
      target_budget: tokens to be learnt that a row may hold; the loss is then taken at so many positions
        instead of all. None for no limit.
      packing: what the model sees of the documents that share a row.
      cache_dir: where --cache_tokens keeps token ids; what it lacks is made when it is drawn.
      strict: end where an example cannot be read, instead of leaving it out.
      leak_probe: check at the start that packed documents do not see each other.
      eval_suite: what the run is evaluated on while it trains; None for nothing.
      eval_period: steps between evaluations; the untuned and the last parameters are evaluated too.
      eval_batch_size: sequences of the model's length that a batch of the evaluation may weigh.
      dry_run: print what would be done.
      show_step: print what the model sees at this step.
      show_lanes: rows to print.
      cache_tokens: keep the token ids of so many draws, or of an epoch where it is True, and end.
      doctor: examine the machine, and end.
      distributed: see `--help`.
      coordinator_address: see `--help`.
      num_processes: see `--help`.
      process_id: see `--help`.
      topology: plan the run for machines, as iml.precompile does, and end.
      suggest: see `--help`.
      output: see `--help`.

    Returns:
      The last record of `metrics.jsonl`.

    Raises:
      InputError: a setting or a file is wrong.
    """
    from rich.console import Console

    from iml.data.store import ExampleStore
    from iml.data.stream import TrainStream
    from iml.data.vocabulary import Vocabulary

    console = Console()
    for name, value, least in (
        ("steps", steps, 0),
        ("checkpoint_period", checkpoint_period, 1),
        ("log_period", log_period, 1),
    ):
        if value < least:
            raise InputError(f"must be at least {least}, not {value}", field=f"train.{name}")
    if keep is not None and keep < 1:
        raise InputError(f"must be at least 1, or None for all, not {keep}", field="train.keep")
    if (eval_suite is None) != (eval_period is None):
        raise InputError("must be given together", field="train.eval_suite, train.eval_period")
    if eval_period is not None and eval_period < 1:
        raise InputError(f"must be at least 1, not {eval_period}", field="train.eval_period")
    check_dtype(model.dtype, loss_scale)
    check_lomo(optimizer, microbatches, model.dtype, tuning is None)
    if length > model.max_positions:
        raise InputError(
            f"{length} is longer than the model's {model.max_positions} positions", field="train.length"
        )
    if topology is not None:
        from iml.precompile import precompile
        from iml.training.planner import Job

        parts = (model, optimizer, mesh, rules, steps, batch_size, length, microbatches, segments)
        job = Job(*parts, target_budget, tuning, loss_chunk, loss_scale)
        precompile(job, topology.split(","), console, suggest, output)
        return {}
    watch = processes.join_by_flags(distributed, coordinator_address, num_processes, process_id)
    with processes.together(watch):
        vocabulary = Vocabulary(os.fspath(vocabulary_dir))
        if vocabulary.size > model.vocab_size:
            raise InputError(
                f"the vocabulary has {vocabulary.size} entries, the model only {model.vocab_size}",
                field="OPTConfig.vocab_size",
                remedy=f"Bind OPTConfig.vocab_size = {vocabulary.padded_size}",
            )
        store = ExampleStore(store_dir)
        stream = TrainStream(
            store,
            vocabulary,
            mixture,
            prompt_format,
            batch_size,
            length,
            seed=seed,
            segments=segments,
            target_budget=target_budget,
            strict=strict,
            cache_dir=cache_dir,
        )
        if cache_tokens is not None:
            _cache(console, stream, cache_dir, cache_tokens)
            return {}
        if show_step is not None:
            _show(console, stream, run_dir, show_step, show_lanes)
            return {}

        import jax

        from iml.models.opt import OPT
        from iml.training import loop, partition
        from iml.training import mesh as mesh_lib
        from iml.training import optimizer as optimizer_lib
        from iml.training import step as step_lib
        from iml.training.tuning import make_tuning

        device_mesh = mesh_lib.make_mesh(mesh)
        step_lib.check_batch_size(batch_size, microbatches, partition.batch_shards(device_mesh))
        rows = partition.shard_batch(device_mesh)
        chosen = make_tuning(tuning)
        network = OPT(
            model,
            constrain=lambda x: jax.lax.with_sharding_constraint(x, rows),
            spread=partition.spread_attention(device_mesh),
            platform=device_mesh.devices.flat[0].platform,
            lora=chosen.lora,
            gather=partition.gather_frozen(device_mesh, rules),
        )
        trained_axes, _ = chosen.split(network.logical_axes())
        update = optimizer_lib.make_optimizer(optimizer, steps, trained_axes, loss_scale)
        layout = step_lib.lay_out(network, update, rules, device_mesh, chosen)
        setup = loop.Setup(
            model=network,
            stream=stream,
            mesh=device_mesh,
            layout=layout,
            rules=rules,
            tuning=chosen,
            optimizer=optimizer,
            loss_chunk=loss_chunk,
            loss_scale=loss_scale,
            microbatches=microbatches,
            steps=steps,
            seed=seed,
            run_dir=os.fspath(run_dir),
            checkpoint_period=checkpoint_period,
            keep=keep,
            log_period=log_period,
            data_threads=data_threads,
            watch=watch,
            packing=packing,
            eval_period=eval_period,
            meta={
                "model": model.to_json(),
                "tuning": tunings.to_json(tuning),
                "fingerprints": fingerprints(model, tuning, stream, packing, optimizer),
                "config": configuration.operative(),
            },
        )
        if eval_suite is not None:
            from iml.evaluation.in_training import InTraining

            parts = (eval_suite, store, vocabulary, network, device_mesh, setup.run_dir, seed)
            setup = dataclasses.replace(setup, evaluate=InTraining(*parts, eval_batch_size, console))
        if jax.process_index() == 0:
            _describe(console, setup, dry_run)
        if dry_run:
            return {}
        if doctor:
            from iml.training.doctor import examine

            return examine(setup, console)
        return _run(console, setup, init_from, vocabulary_dir, leak_probe)


def _run(console: Console, setup: Setup, init_from: str | None, vocabulary_dir: str, leak_probe: bool):
    import jax
    from etils import epath

    from iml.training import checkpoints, loop
    from iml.training import leak_probe as leak_probe_lib
    from iml.training.tuning import join

    say = console.print if jax.process_index() == 0 else lambda *_: None
    standing = loop.restore(setup)
    if standing is None:
        state, frozen = loop.begin(setup, init_from)
        stream_state = setup.stream.initial_state()
        say(f"begins from {init_from or 'random parameters'}")
    else:
        state, frozen, stream_state = standing
        step, wanted = stream_state.step, setup.steps
        say(f"goes on after step {step}" if step < wanted else f"has {step} of {wanted} steps: nothing to do")
    # What only looks at a run that has ended leaves what it says of itself.
    if jax.process_index() == 0 and (standing is None or stream_state.step < setup.steps):
        folder = epath.Path(setup.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        began_from = init_from if standing is None else _begun_from(folder / "plan.json", init_from)
        (folder / "config.gin").write_text(setup.meta["config"])
        (folder / "plan.json").write_text(
            json.dumps(plan_of(setup) | {"init_from": began_from}, indent=1) + "\n"
        )
        checkpoints.write_config(folder / "model.json", setup.model.config)
        checkpoints.copy_vocabulary(vocabulary_dir, folder / "vocabulary")
    if leak_probe and setup.packing.document_mask:
        leak_probe_lib.probe(setup.model, join(state.params, frozen), setup.mesh, setup.stream.length)
        say(f"attention {setup.model.config.attention!r}: packed documents do not see each other")
    elif leak_probe:
        say(f"the leak probe is skipped: {setup.packing}")
    return loop.Trainer(setup, state, frozen, stream_state, console).run()


def _begun_from(plan: epath.Path, given: str | None) -> str | None:
    """What a run that is gone on with began from; `given` where its plan was lost or cut off."""
    try:
        return json.loads(plan.read_text())["init_from"] if plan.exists() else given
    except (ValueError, KeyError):
        return given


def plan_of(setup: Setup) -> dict[str, Any]:
    """What a run draws from and runs on, for `plan.json`."""
    import jax

    stream = setup.stream
    counts = stream.plan.counts
    return {
        "fingerprint": stream.fingerprint,
        "fingerprints": setup.meta["fingerprints"],
        "epoch_size": stream.plan.epoch_size,
        "benchmarks": {
            name: {"tasks": tasks, "draws": draws, "share": draws / stream.plan.epoch_size}
            for name, tasks, draws in _by_benchmark(stream)
        },
        "counts": dict(counts),
        "cards": {name: _told_of(stream.store.tasks[name].card) for name in counts},
        "left_out": left_out(stream),
        "steps": setup.steps,
        "mesh": dict(setup.mesh.shape),
        "processes": jax.process_count(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "attention": setup.model.config.attention,
        "packing": dataclasses.asdict(setup.packing),
        "parameters": setup.model.config.num_parameters(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _told_of(card: TaskCard) -> dict[str, str]:
    """What a model's card tells of a task that the model was tuned on."""
    return {name: getattr(card, name) for name in ("benchmark", "category", "source", "licence")}


def left_out(stream: TrainStream) -> dict[str, str]:
    """Why a task of the store is not trained on, by name."""
    from iml.bench.levels import load_split_scheme

    scheme = load_split_scheme(stream.mixture.split_scheme)
    reasons = dict(stream.store.failures)
    for name, entry in stream.store.tasks.items():
        if name in stream.plan.counts:
            continue
        level = scheme.level(entry.card)
        if level != "supervised":
            reasons[name] = level.replace("_", " ")
        elif "train" not in entry.splits or not entry.splits["train"].rows:
            reasons[name] = "it has no training examples"
        else:
            reasons[name] = "the mixture leaves it out"
    return dict(sorted(reasons.items()))


def _by_benchmark(stream: TrainStream) -> list[tuple[str, int, int]]:
    """(benchmark, its tasks, its draws in an epoch), sorted."""
    groups: dict[str, list[int]] = {}
    for task, count in stream.plan.counts.items():
        groups.setdefault(stream.store.tasks[task].card.benchmark, []).append(count)
    return [(name, len(counts), sum(counts)) for name, counts in sorted(groups.items())]


def _describe(console: Console, setup: Setup, dry_run: bool) -> None:
    """What is about to run; with every task and setting on a dry run."""
    import jax

    stream = setup.stream
    missing = left_out(stream)
    if dry_run:
        console.print(setup.meta["config"], markup=False, highlight=False)
        print_table(console, _task_table(stream))
        for name, reason in missing.items():
            console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
    print_table(console, _benchmark_table(stream))
    if missing:
        console.print(f"{len(missing)} tasks of the store are left out (plan.json and --dry_run name them)")
    shape = ", ".join(f"{name}={size}" for name, size in setup.mesh.shape.items())
    console.print(
        f"mesh {shape} on {jax.device_count()} x {jax.devices()[0].device_kind}, "
        f"{jax.process_count()} process(es)"
    )
    console.print(f"attention {setup.model.config.attention!r}: {setup.packing}")
    console.print(
        f"model of {setup.model.config.num_parameters():,} parameters, {setup.model.config.dtype}; "
        f"{setup.steps} steps of {stream.batch_size} x {stream.length} positions in "
        f"{setup.microbatches} microbatch(es); run folder {setup.run_dir}",
        markup=False,
        soft_wrap=True,
    )


def _benchmark_table(stream: TrainStream) -> Table:
    from rich.table import Table

    table = Table("benchmark", "tasks", "draws in an epoch", "share", title="mixture")
    for name, tasks, draws in _by_benchmark(stream):
        table.add_row(name, str(tasks), f"{draws:,}", f"{draws / stream.plan.epoch_size:.2%}")
    return table


def _task_table(stream: TrainStream) -> Table:
    from rich.table import Table

    table = Table("task", "category", "examples", "draws in an epoch", "share", title="tasks")
    for name, count in stream.plan.counts.items():
        entry = stream.store.tasks[name]
        examples = stream.examples[name]
        share = f"{count / stream.plan.epoch_size:.3%}"
        table.add_row(name, entry.card.category, f"{examples:,}", f"{count:,}", share)
    return table


def _show(console: Console, stream: TrainStream, run_dir: str, show_step: str, show_lanes: str) -> None:
    """Prints rows of a step, made from the nearest checkpoint before it or else from the start."""
    from iml.data.show import show_step as render
    from iml.data.stream import StreamState
    from iml.training import checkpoints

    number = _whole_number(show_step, "--show_step")
    lanes = [_whole_number(lane, "--show_lanes") for lane in str(show_lanes).split(",")]
    state = None
    earlier = [step for step in checkpoints.complete_steps(run_dir) if step <= number]
    if earlier:
        meta = checkpoints.read_meta(run_dir, earlier[-1])
        if meta["fingerprints"]["stream"] == stream.fingerprint:
            state = StreamState.from_json(meta["stream"])
    console.print(render(stream, number, lanes, state))


def _cache(console: Console, stream: TrainStream, cache_dir: str | None, cache_tokens: str | bool) -> None:
    """Keeps the token ids of a stream's draws, with a bar that shows how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from iml.data import token_cache

    if not cache_dir:
        raise InputError("must be given with --cache_tokens", field="train.cache_dir")
    epoch = stream.plan.epoch_size
    draws = epoch if cache_tokens in (True, "epoch") else _whole_number(cache_tokens, "--cache_tokens")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task("token ids", total=None)
        kept = token_cache.build(
            stream, cache_dir, draws, progress=lambda done, of: bar.update(line, completed=done, total=of)
        )
    console.print(f"kept {kept:,} draws in {cache_dir}; an epoch has {epoch:,}")


def _whole_number(text: str | bool, flag: str) -> int:
    if not str(text).strip().isdigit():
        raise InputError(f"not a whole number: {text!r}", field=flag)
    return int(text)


def fingerprints(
    model: OPTConfig,
    tuning: tunings.Settings,
    stream: TrainStream,
    packing: Packing = Packing(),  # noqa: B008 (frozen)
    optimizer: AdamConfig | Lomo = AdamConfig(),  # noqa: B008
) -> dict[str, Any]:
    """What must be the same where a run is gone on with; JSON-able, in words where they are few."""
    shape = {name: value for name, value in model.to_json().items() if name not in FREE}
    plan = json.dumps([dict(stream.plan.counts), dict(stream.plan.rows)], sort_keys=True)
    return json.loads(
        json.dumps(
            {
                "model": shape,
                "tuning": tunings.to_json(tuning),
                # Its kind alone: rates may change, and another kind has another state.
                "optimizer": type(optimizer).__name__,
                "batch_size": stream.batch_size,
                "length": stream.length,
                "target_budget": stream.limits.targets,
                "seed": stream.seed,
                "prompt_format": plain(stream.prompt_format),
                "vocabulary": stream.vocabulary.fingerprint[:16],
                "mixture": hashlib.blake2b(plan.encode(), digest_size=8).hexdigest(),
                "stream": stream.fingerprint,
                **({} if packing == Packing() else {"packing": dataclasses.asdict(packing)}),
            }
        )
    )


if __name__ == "__main__":
    configuration.run(
        train,
        doc=__doc__,
        configurables=CONFIGURABLES,
        flags=FLAGS,
    )
