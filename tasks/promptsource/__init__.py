"""PromptSource: crowd-sourced Jinja templates rendered on rows of public data sets (paper, section 2.1, A.1).

One task is one data set or subset; its rows are examples times templates. Only templates of the data set's
original task are used, and for an evaluation split only those that apply to all its examples, turk excepted.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.errors import InputError
from tasks.definitions import load
from tasks.promptsource.rendering import Renderer, seeded_choice
from tasks.promptsource.rows import RowFiles, find_rows
from tasks.promptsource.templates import Template, read_templates

_URL = "https://github.com/bigscience-workshop/promptsource"
#: Labels of rows whose answer is withheld, as in the public test splits of GLUE and HellaSwag.
_WITHHELD = (-1, "")


def register(
    data_dir: str,
    *,
    original_task_only: bool = True,
    truncate: bool = True,
    train_fraction_of_validation: float = 0.0,
) -> None:
    """Registers a task for every template folder that has rows; opens no data file.

    Args:
      data_dir: holds `promptsource/templates/**/templates.yaml` and the rows (`hf_raw`, `raw`, `t5`).
      original_task_only: leave out templates that ask for something else than the data set's task.
      truncate: cut each printed value to 2048 characters, as the `promptsource` package does.
      train_fraction_of_validation: where there is a validation split and no train split, this share of it
        becomes the train split and only the rest remains for validation; the card's source says so.

    Raises:
      InputError: there are no templates, a fraction is not within [0, 1), or a data set has no category.
    """
    root = epath.Path(data_dir)
    templates = root / "promptsource" / "templates"
    # Level by level: remote folders cannot be searched to any depth.
    levels = ("*/templates.yaml", "*/*/templates.yaml", "*/*/*/templates.yaml")
    paths = sorted(path for pattern in levels for path in templates.glob(pattern))
    if not paths:
        raise InputError("no templates here", path=templates, remedy="Put PromptSource's templates there")
    if not 0.0 <= train_fraction_of_validation < 1.0:
        raise InputError("must be at least 0 and less than 1", field="train_fraction_of_validation")
    for path in paths:
        folder = path.parent.relative_to(templates).as_posix()
        rows = find_rows(root, folder)
        if rows:
            parted = train_fraction_of_validation if "validation" in rows and "train" not in rows else 0.0
            task = TemplateTask(folder, category(folder), path, rows, original_task_only, truncate, parted)
            seqio_bridge.add_task(
                task.card,
                name=task_name(folder),
                source=seqio_bridge.PythonSource(read=task.read, splits=task.splits, files=task.files),
            )


def task_name(folder: str) -> str:
    """The task's name: "super_glue/copa" -> "promptsource.super_glue_copa"."""
    return "promptsource." + "".join(char if char.isalnum() or char in "_." else "_" for char in folder)


@functools.cache
def _definitions() -> Mapping[str, Mapping[str, str]]:
    return load("promptsource_categories.json")


def _definition(table: str, folder: str) -> str | None:
    entries = _definitions()[table]
    return entries.get(folder, entries.get(folder.split("/")[0]))


def category(folder: str) -> str:
    """The category of a template folder's task.

    Raises:
      InputError: the table has none.
    """
    found = _definition("categories", folder)
    if found is None:
        raise InputError(
            f"no category is known for {folder}",
            field="category",
            remedy="Add it to tasks/definitions/promptsource_categories.json",
        )
    return found


@dataclasses.dataclass(frozen=True)
class TemplateTask:
    """One template folder with its rows, and how they are rendered."""

    folder: str
    category: str
    path: epath.Path
    rows: Mapping[str, RowFiles]
    original_task_only: bool = True
    truncate: bool = True
    parted: float = 0.0

    @property
    def splits(self) -> tuple[str, ...]:
        return (*(("train",) if self.parted else ()), *self.rows)

    @property
    def files(self) -> tuple[epath.Path, ...]:
        return (self.path, *(file for split in self.rows.values() for file in (*split.paths, *split.beside)))

    def card(self) -> TaskCard:
        # What departs from the usual stands in the card, so that a store prepared otherwise is not reused.
        notes = [
            f"{self.parted:.0%} of the validation split is the train split" if self.parted else "",
            "" if self.original_task_only else "templates for other tasks too",
            "" if self.truncate else "values not cut",
        ]
        notes = "; ".join(filter(None, notes))
        return TaskCard(
            name=task_name(self.folder),
            benchmark="promptsource",
            category=self.category,
            source=f"{self.folder} ({notes})" if notes else self.folder,
            metrics=_metrics(self.folder, self.templates()),
            url=_URL,
        )

    def templates(self) -> tuple[Template, ...]:
        found = read_templates(self.path)
        chosen = tuple(
            template for template in found if template.original_task or not self.original_task_only
        )
        if not chosen:
            raise InputError("no template is for the original task", path=self.path, field="original_task")
        return chosen

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """Each example under each template that applies to it, example by example."""
        prompts = [_Prompt(self.path, template, self.truncate) for template in self.templates()]
        if split != "train" and self.folder != "turk":
            # Rendered twice rather than kept: a validation split under ten templates may not fit into memory.
            for name, row in self._examples(split):
                prompts = [prompt for prompt in prompts if prompt.example(name, row) is not None]
            if not prompts:
                raise InputError(f"no template applies to all examples of {split}", path=self.path)
        for name, row in self._examples(split):
            for prompt in prompts:
                example = prompt.example(name, row)
                if example is not None:
                    yield example

    def _examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The split's labelled rows with their names, which are of the split that they stand in on disk."""
        stored = "validation" if self.parted and split == "train" else split
        for index, row in enumerate(self.rows[stored].rows()):
            if self.parted and stored == "validation" and _in_train(index, self.parted) != (split == "train"):
                continue
            if row.get("label") not in _WITHHELD:
                yield f"{stored}-{index}", row


def _metrics(folder: str, templates: tuple[Template, ...]) -> tuple[str, ...]:
    """The templates' metrics, the most frequent first; before them the paper's choice where it differs."""
    counts = collections.Counter(metric for template in templates for metric in template.metrics)
    ordered = [metric for metric, _ in counts.most_common()]
    own = _definition("metrics", folder)
    return tuple(dict.fromkeys([own, *ordered] if own else ordered))


def _in_train(index: int, fraction: float) -> bool:
    digest = hashlib.blake2b(f"promptsource {index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < fraction * 2**32


class _Prompt:
    """A template with its renderer."""

    def __init__(self, path: epath.Path, template: Template, truncate: bool):
        self._path, self._template = path, template
        try:
            self._renderer = Renderer(template.jinja, template.answer_choices, truncate=truncate)
        except InputError as error:
            raise self._named(error) from error

    def example(self, name: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The fields of the example, or None if the template does not apply to the row."""
        template = self._template
        try:
            parts, choices = self._renderer.render(row, seeded_choice(name, template.id))
        except InputError as error:
            raise self._named(error, name) from error
        if len(parts) != 2 or not all(parts):
            return None
        source, target = parts
        ranked = "accuracy" in template.metrics and choices and len(set(choices)) > 1 and target in choices
        return {
            "uid": name,
            "source": source,
            "target": target,
            "references": [target],
            "candidates": list(dict.fromkeys(choices)) if ranked else [],
            "template": f"{template.id} {template.name}",
        }

    def _named(self, error: InputError, name: str = "") -> InputError:
        where = f"template {self._template.id} ({self._template.name})" + (f" on {name}" if name else "")
        return InputError(f"{where}: {error.problem}", path=self._path, field=error.field)
