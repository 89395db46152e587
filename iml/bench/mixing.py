"""How much of every task goes into an epoch: exact whole numbers of draws.

The rates are OPT-IML's (sections 2.4 and 4.2): examples-proportional with a cap (EPS), then shares by
benchmark, then extra shares (reasoning, pre-training text, dialogue) that are taken off the whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from iml.bench.card import BENCHMARKS, TaskCard
from iml.bench.subsets import CategorySubset, ExampleSubset, TaskSubset
from iml.errors import InputError

#: Sources outside the benchmark families, which take part where they are named.
EXTRA_SOURCES = ("pretraining", "dialogue")

_Key = TypeVar("_Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Which tasks are trained on, and in which proportions.

    Attributes:
      split_scheme: name or path of the scheme that says which tasks are held out; only supervised ones mix.
      eps: cap on the examples of a task that count for its rate; None for no cap.
      proportions: relative share of each benchmark; a benchmark that is not named is left out, one without
        tasks leaves its share to the others. None keeps the natural proportions.
      extra_shares: fraction of the whole that these benchmarks get; all others share the rest.
      extra_from: benchmark that the extra shares are taken from; None to take them from all others alike.
      tasks: patterns of the task names to take.
      exclude: patterns of the task names to leave out.
      subset: which of those tasks to take, benchmarks of `extra_shares` aside; None for all.
      examples: which examples of those tasks may be drawn; None for all.
      epoch_size: draws in an epoch; None for the number of examples, each task capped at `eps`.
    """

    split_scheme: str = "opt_iml"
    eps: int | None = 4096
    proportions: Mapping[str, float] | None = None
    extra_shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    extra_from: str | None = None
    tasks: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    subset: TaskSubset | CategorySubset | None = None
    examples: ExampleSubset | None = None
    epoch_size: int | None = None

    def __post_init__(self):
        for name in ("tasks", "exclude"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("eps", "epoch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"must be at least 1, not {value}", field=f"Mixture.{name}")
        for name in ("proportions", "extra_shares"):
            for benchmark, share in (getattr(self, name) or {}).items():
                if not 0 <= share < float("inf"):
                    raise InputError(f"the share of {benchmark!r} is {share}", field=f"Mixture.{name}")
        if sum(map(_exact, self.extra_shares.values())) > 1:
            raise InputError("the shares are fractions and sum to over 1", field="Mixture.extra_shares")
        if self.extra_from in self.extra_shares:
            raise InputError("cannot be one that gets an extra share", field="Mixture.extra_from")

    def select(self, cards: Mapping[str, TaskCard]) -> tuple[str, ...]:
        """Names of the tasks to train on, sorted: supervised, wanted by `tasks`, not by `exclude`, in `subset`.

        Sources outside the families (`EXTRA_SOURCES`) join only where `extra_shares`, `proportions` or a
        pattern of `tasks` names them, or where there is nothing else.

        Raises:
          InputError: a pattern of `tasks` matches no task, nothing is left, or the subset cannot be made.
        """
        from iml.bench.levels import load_split_scheme

        scheme = load_split_scheme(self.split_scheme)
        names = sorted(cards)
        for pattern in self.tasks:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"no task matches {pattern!r}", field="Mixture.tasks", remedy=_suggestion(pattern, names)
                )
        chosen = tuple(
            name
            for name in names
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.tasks)
            and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude)
            and scheme.level(cards[name]) == "supervised"
        )
        if not chosen:
            raise InputError("no supervised task is left to train on", field="Mixture.tasks")
        named = {*self.extra_shares, *(self.proportions or ()), *(t.partition(".")[0] for t in self.tasks)}
        outside = set(EXTRA_SOURCES) - named
        chosen = tuple(name for name in chosen if cards[name].benchmark not in outside) or chosen
        if self.subset is None:
            return chosen
        extra = {name for name in chosen if cards[name].benchmark in self.extra_shares}
        validated = [name for name in chosen if "validation" in scheme.sets(cards[name])]
        inside = self.subset.select({name: cards[name] for name in chosen if name not in extra}, validated)
        return tuple(sorted(extra.union(inside)))

    def sizes(self, tasks: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        """How many examples of each task may be drawn, sorted by name.

        With `examples` that is 0 for a task without a rate, or with no share of the total.

        Args:
          tasks: (benchmark, number of examples) by task name.

        Raises:
          InputError: as `counts`.
        """
        having = {name: number for name, (_, number) in sorted(tasks.items())}
        if self.examples is None:
            return having
        rates = dataclasses.replace(self, epoch_size=None).counts(tasks)
        return dict.fromkeys(having, 0) | self.examples.sizes(having, rates)

    def counts(self, tasks: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        """Draws of every task in an epoch, of tasks with a positive rate only, sorted by name.

        Every such task gets at least one. Otherwise a task's count, and the sum over a benchmark's tasks, is
        its exact rate times the epoch size rounded down or up (largest remainder).

        Args:
          tasks: (benchmark, number of examples that may be drawn) by task name.

        Raises:
          InputError: an unknown benchmark is named, nothing has a positive rate, or the epoch is too short.
        """
        members: dict[str, dict[str, Fraction]] = {}
        for name, (benchmark, examples) in sorted(tasks.items()):
            if examples > 0:
                weight = min(examples, self.eps) if self.eps else examples
                members.setdefault(benchmark, {})[name] = Fraction(weight)
        shares = self._shares({name: sum(weights.values()) for name, weights in members.items()})
        if not shares:
            raise InputError("no task has a positive rate", field="Mixture.proportions")
        minima = {name: len(members[name]) for name in shares}
        size = self.epoch_size or int(sum(sum(members[name].values()) for name in shares))
        if size < sum(minima.values()):
            raise InputError(
                f"{size} draws cannot hold each of {sum(minima.values())} tasks once",
                field="Mixture.epoch_size",
            )
        quotas: dict[str, dict[str, Fraction]] = {}
        for benchmark, quota in _apportion(Fraction(size), shares, minima).items():
            quotas[benchmark] = _apportion(quota, members[benchmark], dict.fromkeys(members[benchmark], 1))
        # Rounding between the benchmarks, then within each, rounds both sums and parts to within one:
        # what a benchmark's floors leave over is less than the number of its tasks that can be rounded up.
        left = {name: sum(quota % 1 for quota in parts.values()) for name, parts in quotas.items()}
        left = _round(left, int(sum(left.values())))
        counts: dict[str, int] = {}
        for benchmark, parts in quotas.items():
            ups = _round({name: quota % 1 for name, quota in parts.items()}, left[benchmark])
            counts |= {name: int(quota) + ups[name] for name, quota in parts.items()}
        return dict(sorted(counts.items()))

    def _shares(self, natural: Mapping[str, Fraction]) -> dict[str, Fraction]:
        """Share of each benchmark that has one; they sum to 1."""
        known = {*BENCHMARKS, *EXTRA_SOURCES, *natural}
        named = {
            "proportions": self.proportions or {},
            "extra_shares": self.extra_shares,
            "extra_from": [self.extra_from] if self.extra_from else [],
        }
        for field, benchmarks in named.items():
            for benchmark in benchmarks:
                if benchmark not in known:
                    remedy = _suggestion(benchmark, sorted(known))
                    raise InputError(
                        f"unknown benchmark {benchmark!r}", field=f"Mixture.{field}", remedy=remedy
                    )
        extra = {
            name: _exact(share) for name, share in self.extra_shares.items() if share and name in natural
        }
        base = {
            name: weight if self.proportions is None else _exact(self.proportions.get(name, 0))
            for name, weight in natural.items()
            if name not in self.extra_shares
        }
        base = {name: weight for name, weight in base.items() if weight}
        rest, total = 1 - sum(extra.values()), sum(base.values())
        if not base or not rest:
            base, whole = {}, sum(extra.values())
            extra = {name: share / whole for name, share in extra.items()}
        if self.extra_from is None or not base:
            return {name: rest * weight / total for name, weight in base.items()} | extra
        shares = {name: weight / total for name, weight in base.items()}
        left = shares.get(self.extra_from, 0) - sum(extra.values())
        if left <= 0:
            raise InputError(
                f"{self.extra_from} has {float(shares.get(self.extra_from, 0)):.4g} of the whole, from which"
                f" {float(sum(extra.values())):.4g} cannot be taken",
                field="Mixture.extra_from",
            )
        return shares | {self.extra_from: left} | extra


#: What a gin file may set of a mixture; to be known wherever `Mixture` is.
CONFIGURABLES = (Mixture, TaskSubset, CategorySubset, ExampleSubset)


def _apportion(
    total: Fraction, weights: Mapping[_Key, Fraction], minima: Mapping[_Key, int]
) -> dict[_Key, Fraction]:
    """Parts of a total in proportion to weights, none below its minimum; the sum of the minima must fit."""
    low: dict[_Key, Fraction] = {}
    while True:
        open_weights = {key: weight for key, weight in weights.items() if key not in low}
        rest, whole = total - sum(low.values()), sum(open_weights.values())
        parts = {key: rest * weight / whole for key, weight in open_weights.items()}
        below = {key: Fraction(minima[key]) for key, part in parts.items() if part < minima[key]}
        if not below:
            return {key: low[key] if key in low else parts[key] for key in weights}
        low |= below


def _round(parts: Mapping[_Key, Fraction], total: int) -> dict[_Key, int]:
    """Whole numbers that sum to `total`: floors, and one more for the largest remainders (ties by key)."""
    floors = {key: int(part) for key, part in parts.items()}
    order = sorted(parts, key=lambda key: (floors[key] - parts[key], key))
    for key in order[: total - sum(floors.values())]:
        floors[key] += 1
    return floors


def _exact(share: float) -> Fraction:
    """The decimal fraction that was written, not the binary one that stands for it."""
    return Fraction(str(share))


def _suggestion(name: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else None
