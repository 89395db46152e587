"""What is evaluated: which tasks at which levels, with how many shots, and how candidates are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from iml.bench.card import TaskCard
from iml.bench.levels import LEVELS
from iml.data.prompts import PromptFormat
from iml.data.settings import LATER
from iml.errors import InputError
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.metrics import METRICS


@dataclasses.dataclass(frozen=True)
class Suite:
    """An evaluation.

    Attributes:
      name: what reports call it.
      tasks: patterns of the task names to take; those that match no task are told of and reported.
      exclude: patterns of the task names to leave out.
      categories: patterns of the categories to take.
      levels: the generalisation levels to take.
      split: "validation" or "test".
      other_split: whether a task that lacks this split is evaluated on the other one, or left out.
      shots: numbers of demonstrations, each evaluated on its own.
      max_prompts_per_task: rows drawn of a larger split; None for all; "auto", which becomes one of the two,
        for what the paper does (section 2.3): 250 of a suite that validates, all of one that tests.
      format: how examples become prompts.
      scorers: by what candidates are ranked: "sum", "mean", "char", "unconditional", "partial"; reported side
        by side.
      with_eos: whether the end of the document counts as part of a candidate; both may be given.
      primary_scorer: the one whose choice is the prediction; "_eos" is added to its name where it counts EOS.
      metric: the metric that is aggregated, in place of the first of each task's card; None for that.
      over_instances: whether scores are also averaged over all examples, whatever their task, as the official
        metric of Super-NaturalInstructions does; beside the means of means, not in their place.
      decoding: how answers are generated.
      split_scheme: name or path of the scheme that gives tasks their levels.
      databases: the folder of the files that metrics read: databases, `<name>/*.sqlite`, for execution accuracy,
        `kvret_entities.json` for entity F1; "" for none, and the metrics are then told of as not computed.
      task_counts: by pattern of `tasks`, how many tasks it stands for; with fewer, it is told of and reported.
    """

    name: str = "validation"
    tasks: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    categories: Sequence[str] = ("*",)
    levels: Sequence[str] = LEVELS
    split: str = "validation"
    other_split: bool = True
    shots: Sequence[int] = (0, 5)
    max_prompts_per_task: int | str | None = "auto"
    format: PromptFormat = PromptFormat()  # noqa: RUF009 (frozen)
    scorers: Sequence[str] = ("sum", "mean", "char", "unconditional")
    with_eos: Sequence[bool] = (True, False)
    primary_scorer: str = "sum_eos"
    metric: str | None = None
    over_instances: bool = False
    decoding: Decoding = Decoding()  # noqa: RUF009 (frozen)
    split_scheme: str = "opt_iml"
    databases: str = ""
    task_counts: Mapping[str, int] | None = dataclasses.field(default=None, metadata=LATER)

    def __post_init__(self):
        for name in ("tasks", "categories", "levels", "shots", "scorers", "with_eos"):
            value = tuple(getattr(self, name))
            if not value:
                raise InputError("needs at least one entry", field=f"Suite.{name}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if self.split not in ("validation", "test"):
            raise InputError(f"must be validation or test, not {self.split!r}", field="Suite.split")
        for level in self.levels:
            if level not in LEVELS:
                remedy = f"Known: {', '.join(LEVELS)}"
                raise InputError(f"unknown level {level!r}", field="Suite.levels", remedy=remedy)
        if self.metric is not None and self.metric not in METRICS:
            remedy = f"Known: {', '.join(METRICS)}"
            raise InputError(f"no metric {self.metric!r}", field="Suite.metric", remedy=remedy)
        if min(self.shots) < 0:
            raise InputError("must not be negative", field="Suite.shots")
        if self.max_prompts_per_task == "auto":
            object.__setattr__(self, "max_prompts_per_task", 250 if self.split == "validation" else None)
        most, field = self.max_prompts_per_task, "Suite.max_prompts_per_task"
        if isinstance(most, str):
            raise InputError(f'must be a number, None or "auto", not {most!r}', field=field)
        if most is not None and most < 1:
            raise InputError(f"must be at least 1, not {most}", field=field)

    def without_eos(self) -> Suite:
        """The same for an engine that cannot tell how likely an answer ends: no scorer counts that."""
        return dataclasses.replace(
            self, with_eos=(False,), primary_scorer=self.primary_scorer.removesuffix("_eos")
        )

    def scored(self, card: TaskCard) -> TaskCard:
        """The card with the suite's metric before its own."""
        if self.metric is None:
            return card
        others = tuple(name for name in card.metrics if name != self.metric)
        return dataclasses.replace(card, metrics=(self.metric, *others))
