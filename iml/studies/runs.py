"""The runs that a study comes to, named by hashes of all that their results depend on.

A run is what iml.train and iml.evaluate would be called with. Two settings that come to the same stream of
examples, model and updates are one run, in whichever words and studies they were asked for; a setting that changes
is another run, and what is finished of it is left alone.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iml.errors import InputError
from iml.studies import names
from iml.studies.design import Base, Design, Setting
from iml.training import flops

RUNS = "runs"
_UNTUNED = "untuned"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a run is asked.

    Attributes:
      name: hash of what its scores depend on beside the model.
      suite: what the study calls it.
      files, bindings: of iml.evaluate, without model and folders.
      best: whether it is asked of the checkpoint that is best on validation, or of the last.
    """

    name: str
    suite: str
    files: tuple[str, ...]
    bindings: tuple[str, ...]
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run and its evaluations.

    Attributes:
      name: hash of what the model that it trains depends on.
      title: the setting and seed that first asked for it.
      files, bindings: of iml.train, without the run's folder.
      steps: updates.
      tokens: positions that it trains on.
      flops: of training.
      shape: what its speed depends on, for estimates from runs of the same shape.
      begins_from: the run whose last parameters it begins from, or None.
      evaluations: what it is asked.
    """

    name: str
    title: str
    files: tuple[str, ...]
    bindings: tuple[str, ...]
    steps: int
    tokens: int
    flops: float
    shape: str
    begins_from: str | None
    evaluations: tuple[Evaluation, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the study's tables: a setting, or the untuned model.

    Attributes:
      name: what tables call it.
      values: by factor, the name of its value; {} for an untuned model.
      runs: names of its runs, one for each seed.
      evaluations: by suite, the name of what its runs are asked.
    """

    name: str
    values: Mapping[str, str]
    runs: tuple[str, ...]
    evaluations: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study expanded.

    Attributes:
      design: the study.
      directory: folder of all studies and runs.
      rows: the untuned models, then the settings.
      runs: each once, those that others begin from first.
    """

    design: Design
    directory: pathlib.Path
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]

    @property
    def folder(self) -> pathlib.Path:
        """The study's own folder."""
        return self.directory / self.design.name

    def to_json(self) -> dict[str, Any]:
        """The runs as workers read them."""
        return {"directory": str(self.directory), "runs": [dataclasses.asdict(run) for run in self.runs]}


def expand(design: Design, directory: pathlib.Path) -> Plan:
    """All runs of a study; the store must exist.

    Raises:
      InputError: a file, binding or setting is wrong; or the store is missing.
    """
    maker = _Maker(design, directory)
    before = {
        name: maker.make(name, bindings, design.seeds[0], ()) for name, bindings in design.before.items()
    }
    maker.before = {name: run.name for name, run in before.items()}
    asked = _evaluations(design, design.choose_checkpoint)
    asked_untuned = _evaluations(design, best=False)
    settings = design.settings()
    runs = {
        setting.name: tuple(
            maker.make(setting.name, setting.bindings, seed, _of(setting, asked)) for seed in design.seeds
        )
        for setting in settings
    }
    untuned = _untuned(maker, settings, asked_untuned) if design.untuned else []
    rows = [Row(name, {}, _names(found), _by_suite(asked_untuned)) for name, found in untuned]
    rows += [Row(s.name, s.values, _names(runs[s.name]), _by_suite(_of(s, asked))) for s in settings]
    _check_names(rows)
    first = [run for _, found in untuned for run in found]
    # Seed by seed, so that a table of all settings can be drawn early.
    by_seed = [runs[setting.name][i] for i in range(len(design.seeds)) for setting in settings]
    every: dict[str, Run] = {}
    for run in (*before.values(), *first, *by_seed):
        every[run.name] = _join(every.get(run.name), run)
    return Plan(design, directory, tuple(rows), tuple(every.values()))


def read_plan(path: pathlib.Path) -> tuple[pathlib.Path, tuple[Run, ...]]:
    """Folder of all studies, and runs of a plan that was written down.

    Raises:
      InputError: there is none, or the file holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return pathlib.Path(record["directory"]), _read_runs(record["runs"])
    except OSError as error:
        remedy = "python -m iml.study --dry_run writes it"
        raise InputError(f"no plan here ({error.strerror})", path=path, remedy=remedy) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("this is not a study's plan", path=path) from error


def _read_runs(entries: Iterable[Mapping[str, Any]]) -> tuple[Run, ...]:
    runs = []
    for entry in entries:
        asked = tuple(
            Evaluation(**{**e, "files": tuple(e["files"]), "bindings": tuple(e["bindings"])})
            for e in entry["evaluations"]
        )
        lists = {name: tuple(entry[name]) for name in ("files", "bindings")}
        runs.append(Run(**{**entry, **lists, "evaluations": asked}))
    return tuple(runs)


class _Maker:
    """Makes runs of one study."""

    def __init__(self, design: Design, directory: pathlib.Path):
        self.design, self.directory = design, directory
        self.before: Mapping[str, str] = {}

    def make(
        self,
        setting: str,
        bindings: Iterable[str],
        seed: int,
        evaluations: Sequence[Evaluation],
        untuned: bool = False,
    ) -> Run:
        """The run of a setting and a seed."""
        base, begins_from = self.design.base, None
        # The last of several bindings holds: a setting may include whole runs, which have their own folders.
        lines = [*base.train_bindings, *bindings, f"STORE_DIR = {base.store_dir!r}", f"SEED = {seed}"]
        if base.vocabulary_dir is not None:
            lines.append(f"VOCABULARY_DIR = {base.vocabulary_dir!r}")
        if untuned:
            lines.append("TRAIN_STEPS = 0")
        for name, run in self.before.items():
            if any(f"{{{name}}}" in line for line in lines):
                lines = [line.replace(f"{{{name}}}", str(self.directory / RUNS / run)) for line in lines]
                begins_from = run
        chooses = any(evaluation.best for evaluation in evaluations)
        try:
            training = names.name_training(base.train, lines, begins_from, chooses)
        except InputError as error:
            told = {name: getattr(error, name) for name in ("path", "line", "field", "remedy")}
            raise InputError(f"in the setting {setting!r}: {error.problem}", **told) from error
        given = training.given
        steps, tokens = given["steps"], given["steps"] * given["batch_size"] * given["length"]
        each = flops.flops_per_token(given["model"], given["length"], tuning=given["tuning"])
        return Run(
            name=training.name,
            title=f"{setting}, seed {seed}" if len(self.design.seeds) > 1 else setting,
            files=base.train,
            bindings=tuple(lines),
            steps=steps,
            tokens=tokens,
            flops=tokens * each,
            shape=training.shape,
            begins_from=begins_from,
            evaluations=tuple(evaluations),
        )


def _check_names(rows: Sequence[Row]) -> None:
    """Results are kept by these names."""
    every = [row.name for row in rows]
    if twice := [name for name in every if every.count(name) > 1]:
        raise InputError(
            f"{twice[0]!r} is what the untuned model is called",
            field="Factor.values",
            remedy="Call the value otherwise, or set Design.untuned = False",
        )


def _untuned(
    maker: _Maker, settings: Sequence[Setting], evaluations: Sequence[Evaluation]
) -> list[tuple[str, tuple[Run, ...]]]:
    """The untuned models of all settings, each once, named by what its settings have in common."""
    found: dict[tuple[str, ...], tuple[tuple[Run, ...], list[Setting]]] = {}
    for setting in settings:
        runs = tuple(
            maker.make(_UNTUNED, setting.bindings, seed, evaluations, untuned=True)
            for seed in maker.design.seeds
        )
        found.setdefault(_names(runs), (runs, []))[1].append(setting)
    short = [_in_common(members) if len(found) > 1 else _UNTUNED for _, members in found.values()]
    named = []
    for name, (runs, members) in zip(short, found.values(), strict=True):
        if short.count(name) > 1:
            # Several have these values in common, and are told apart by all settings that begin from them.
            name = f"{_UNTUNED} ({'; '.join(setting.name for setting in members)})"
        titled = (dataclasses.replace(run, title=run.title.replace(_UNTUNED, name, 1)) for run in runs)
        named.append((name, tuple(titled)))
    return named


def _in_common(settings: Sequence[Setting]) -> str:
    first, *others = settings
    common = (
        value
        for factor, value in first.values.items()
        if all(setting.values[factor] == value for setting in others)
    )
    return ", ".join([_UNTUNED, *common])


def _evaluations(design: Design, best: bool) -> tuple[Evaluation, ...]:
    return tuple(_evaluation(design.base, suite, lines, best) for suite, lines in design.suites.items())


def _evaluation(base: Base, suite: str, bindings: Sequence[str], best: bool) -> Evaluation:
    lines = (f"STORE_DIR = {base.store_dir!r}", *base.evaluate_bindings, *bindings)
    name = names.name_evaluation(base.evaluate, lines, best)
    return Evaluation(name, suite, base.evaluate, lines, best)


def _of(setting: Setting, evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Those of the evaluations that the setting's runs are asked."""
    return tuple(each for each in evaluations if setting.suites is None or each.suite in setting.suites)


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(run.name for run in runs)


def _by_suite(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    return {evaluation.suite: evaluation.name for evaluation in evaluations}


def check_training(run: Run) -> None:
    """Refuses a run that would not train what it is called by any more.

    Raises:
      InputError: its gin files or the store have changed since it was planned.
    """
    chooses = any(evaluation.best for evaluation in run.evaluations)
    training = names.name_training(run.files, run.bindings, run.begins_from, chooses)
    _check(run.name, training.name, run.files)


def check_evaluation(evaluation: Evaluation) -> None:
    """Refuses an evaluation that would not ask what it is called by any more.

    Raises:
      InputError: as `check_training`.
    """
    name = names.name_evaluation(evaluation.files, evaluation.bindings, evaluation.best)
    _check(evaluation.name, name, evaluation.files)


def _check(planned: str, name: str, files: Sequence[str]) -> None:
    if name != planned:
        raise InputError(
            "these gin files, what is included by them or the study, or the store have changed since this was"
            f" planned: it was {planned} and would be {name}",
            path=", ".join(files),
            remedy="Plan again: python -m iml.study --dry_run with the study's files",
        )


def _join(first: Run | None, second: Run) -> Run:
    """One run of two that train alike, asked what either is asked."""
    if first is None:
        return second
    asked = {evaluation.name: evaluation for evaluation in (*first.evaluations, *second.evaluations)}
    return dataclasses.replace(first, evaluations=tuple(asked.values()))
