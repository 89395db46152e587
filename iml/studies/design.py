"""What a study is: a base run, what is changed in it, and what all of its runs are asked."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iml.errors import InputError
from iml.studies.published import find_tables

#: Lines of a gin file, `include` among them; one, or nested lists.
Bindings = str | Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Base:
    """The run that all runs of a study change something in. Names are those of gin files.

    The files use the macros STORE_DIR, RUN_DIR, SEED and TRAIN_STEPS of a training run, and MODEL, OUTPUT_DIR and
    STORE_DIR of an evaluation, as those that come with iml do.

    Attributes:
      name: what reports call it.
      store_dir: the example store of training and evaluation.
      vocabulary_dir: folder of the BPE, for the macro VOCABULARY_DIR of a training run; None where its files say.
      train: gin files of iml.train.
      evaluate: gin files of iml.evaluate.
      prepare: gin files of iml.prepare, by which a store that is missing is made; () where it must exist.
      train_bindings: further bindings of iml.train, as lines of a gin file.
      evaluate_bindings: further bindings of iml.evaluate.
    """

    name: str
    store_dir: str
    train: Sequence[str]
    evaluate: Sequence[str]
    vocabulary_dir: str | None = None
    prepare: Sequence[str] = ()
    train_bindings: Bindings = ()
    evaluate_bindings: Bindings = ()

    def __post_init__(self):
        for name in ("train", "evaluate", "prepare", "train_bindings", "evaluate_bindings"):
            object.__setattr__(self, name, _lines(getattr(self, name), f"Base.{name}"))


@dataclasses.dataclass(frozen=True)
class Factor:
    """What is varied.

    Attributes:
      name: what reports call it.
      values: by the name of each value, the bindings of iml.train that make it. "{NAME}" in a binding stands for
        the folder of the run NAME of `Design.before`.
      suites: by the name of a value, the suites that its runs are asked; of those not named, all.
    """

    name: str
    values: Mapping[str, Bindings]
    suites: Mapping[str, str | Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not self.values:
            raise InputError("needs at least one value", field="Factor.values")
        values = {str(name): _lines(lines, "Factor.values") for name, lines in self.values.items()}
        object.__setattr__(self, "values", values)
        suites = {name: _lines(names, "Factor.suites") for name, names in self.suites.items()}
        object.__setattr__(self, "suites", suites)
        if unknown := suites.keys() - values.keys():
            raise InputError(f"no value {min(unknown)!r}", field="Factor.suites")


@dataclasses.dataclass(frozen=True)
class Design:
    """A study.

    Attributes:
      name: its folder's name.
      title: what it asks, in a few words.
      base: the run that it changes.
      factors: what is varied; several make a grid.
      seeds: of training; each setting is run with each, and all are asked the same prompts.
      suites: by name, further bindings of iml.evaluate; each run is asked each of them.
      baseline: the setting that the others are compared with; None for the first.
      untuned: whether the untuned model is evaluated too; it is once for all studies of a base.
      before: by name, bindings of iml.train of runs that others begin from, which are no settings themselves.
      choose_checkpoint: evaluate all checkpoints of a run on the suite's validation split, draw the curve, and
        ask the suites of the one that is best there (paper, section 4.1); otherwise of the last one.
      published: which published figures stand beside the results: keys of `definitions/published.json`.
      note: what a reader of the results must know.
    """

    name: str
    title: str
    base: Base
    factors: Sequence[Factor]
    seeds: Sequence[int] = (1234,)
    suites: Mapping[str, Bindings] = dataclasses.field(default_factory=lambda: {"suite": ()})
    baseline: str | None = None
    untuned: bool = True
    before: Mapping[str, Bindings] = dataclasses.field(default_factory=dict)
    choose_checkpoint: bool = False
    published: Sequence[str] = ()
    note: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(f"{self.name!r} cannot be a folder's name", field="Design.name")
        for name in ("factors", "seeds", "published"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("factors", "seeds", "suites"):
            if not getattr(self, name):
                raise InputError("needs at least one entry", field=f"Design.{name}")
        for name in ("suites", "before"):
            lines = {key: _lines(value, f"Design.{name}") for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, lines)
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("each may be named once", field="Design.seeds")
        find_tables(self.published)
        settings = self.settings()
        names = [setting.name for setting in settings]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"several settings are called {twice[0]!r}", field="Factor.values")
        self._check_suites(settings)
        if self.baseline is None:
            object.__setattr__(self, "baseline", names[0])
        if self.baseline not in names:
            remedy = f"The settings: {', '.join(names)}"
            raise InputError(f"no setting {self.baseline!r}", field="Design.baseline", remedy=remedy)

    def _check_suites(self, settings: Sequence[Setting]) -> None:
        asked = set()
        for setting in settings:
            suites = set(self.suites if setting.suites is None else setting.suites)
            if unknown := suites - self.suites.keys():
                raise InputError(f"no suite {min(unknown)!r} in Design.suites", field="Factor.suites")
            if not suites:
                raise InputError(f"the setting {setting.name!r} is asked no suite", field="Factor.suites")
            asked |= suites
        if unasked := self.suites.keys() - asked:
            raise InputError(f"no setting is asked the suite {min(unasked)!r}", field="Factor.suites")

    def settings(self) -> list[Setting]:
        """One of each combination of the factors' values, the last factor's changing fastest."""
        return list(_settings(self.factors))


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value of each factor.

    Attributes:
      name: the values' names, which tables call it by.
      values: by factor, the value's name.
      bindings: the bindings of iml.train that make it.
      suites: the suites that its runs are asked; None for all.
    """

    name: str
    values: Mapping[str, str]
    bindings: tuple[str, ...]
    suites: tuple[str, ...] | None


#: What a gin file of a study may set.
CONFIGURABLES = (Design, Base, Factor)


def _settings(factors: Sequence[Factor]) -> Iterator[Setting]:
    for chosen in itertools.product(*(factor.values for factor in factors)):
        pairs = list(zip(factors, chosen, strict=True))
        limits = [factor.suites[value] for factor, value in pairs if value in factor.suites]
        yield Setting(
            ", ".join(chosen),
            {factor.name: value for factor, value in pairs},
            tuple(line for factor, value in pairs for line in factor.values[value]),
            tuple(name for name in limits[0] if all(name in limit for limit in limits)) if limits else None,
        )


def _lines(value: str | Sequence[Any], field: str) -> tuple[str, ...]:
    """Lines out of one line or nested lists of them."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise InputError(f"must be lines of a gin file, not {value!r}", field=field)
    return tuple(line for part in value for line in _lines(part, field))
