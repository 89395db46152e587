"""FLAN 2021: data sets of 12 clusters, each asked for in several ways by templates with plain `{field}` names.

A task is `flan.<set>`. `tasks/definitions/flan_datasets.json` says where a set's rows lie and how they become
fields (`tasks.flan.fields`); `flan_templates.yaml` beside it holds the project's own templates, and
`flan/templates.yaml` in the data folder replaces those of the sets it names (`tasks.flan.templates`). Every example
stands under each of its set's templates, with one uid and several `template`s. Inverted templates, which ask for
something else than the answer, are left out as in OPT-IML (section 2.1).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks.definitions import load
from tasks.flan.fields import Instance, field_names, instances
from tasks.flan.releases import release_of
from tasks.flan.templates import ANSWER, OPTIONS, Template, Templates, fill, options_block, read_templates
from tasks.promptsource.rows import SPLITS, Row, RowFiles, find_rows, read_lines

BENCHMARK = "flan"
_URL = "https://github.com/google-research/FLAN"
#: By cluster, metrics beside Rouge-L, by which the paper scores FLAN's generated answers.
_BESIDE = {
    "translation": ("bleu", "chrf"),
    "structure to text": ("bleu",),
    "summarization": ("rouge_1", "rouge_2"),
    **dict.fromkeys(
        ("reading comprehension", "conversational QA", "closed-book QA"), ("squad_f1", "squad_em")
    ),
}
_OWN_TEMPLATES = importlib.resources.files("tasks.definitions") / "flan_templates.yaml"


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each data set, by its name; the keys are told in `tasks.flan.fields`."""
    return load("flan_datasets.json")["datasets"]


@functools.cache
def own_templates() -> Templates:
    """The project's own templates of every data set."""
    return read_templates(str(_OWN_TEMPLATES))


def register(data_dir: str, *, templates: str = "", inverted: bool = False) -> None:
    """Registers every data set whose rows are there; opens no data file.

    Args:
      data_dir: holds the rows, `hf_raw/<set>/<subset or none>/<split>.jsonl[.gz]` or one of the releases that
        `tasks.promptsource.rows` and `tasks.flan.releases` know.
      templates: a YAML file of templates, or a module that offers them; "" for `<data_dir>/flan/templates.yaml`
        if there is one. They replace the project's own of the data sets they name.
      inverted: also use the templates that ask for something else than the answer.

    Raises:
      InputError: no data set has rows, or the templates are not of their form or name an unknown data set.
    """
    root = epath.Path(data_dir)
    found = False
    for task in flan_tasks(root, templates, inverted):
        rows = rows_of(root, task.definition)
        if rows:
            found = True
            task = dataclasses.replace(task, rows=rows)
            source = seqio_bridge.PythonSource(read=task.read, splits=tuple(rows), files=task.files)
            seqio_bridge.add_task(task.card, name=task.task_name, source=source)
    if not found:
        remedy = "Put rows into hf_raw/<set>/<subset or none>/<split>.jsonl, or take tasks.flan.tfds"
        raise InputError("no data set of FLAN has rows here", path=root, remedy=remedy)


def flan_tasks(root: epath.Path, templates: str, inverted: bool) -> Iterator[FlanTask]:
    """Every data set with the templates chosen for it, its rows yet to be found.

    Raises:
      InputError: as for `register`.
    """
    own = root / "flan" / "templates.yaml"
    where = templates or (str(own) if own.is_file() else "")
    chosen = {**own_templates(), **(_given_templates(where) if where else {})}
    for name, definition in definitions().items():
        used = tuple(one for one in chosen[name] if inverted or not one.inverted)
        if not used:
            remedy = "Give it another, or ask for the inverted ones too"
            raise InputError("has inverted templates only", path=where, field=name, remedy=remedy)
        yield FlanTask(name, definition, used)


def _given_templates(where: str) -> Templates:
    given = read_templates(where)
    unknown = next((name for name in given if name not in definitions()), None)
    if unknown is not None:
        remedy = f"Known data sets: {', '.join(definitions())}"
        raise InputError("FLAN has no such data set", path=where, field=unknown[:80], remedy=remedy)
    return given


def rows_of(root: epath.Path, definition: Mapping[str, Any]) -> dict[str, RowFiles]:
    """The splits of a data set that have rows on disk; opens no file.

    A release in other files serves only where there are no rows of HF's schema: its splits need not be the same
    (MRPC's training file holds GLUE's validation rows).
    """
    found = dict(find_rows(root, definition["release"])) if "release" in definition else {}
    names = definition.get("splits", {})
    for folder in reversed(definition["folders"]):
        for split in SPLITS:
            stem = f"{names.get(split, split)}.jsonl"
            for path in (root / "hf_raw" / folder / stem, root / "hf_raw" / folder / f"{stem}.gz"):
                if path.is_file():
                    found[split] = RowFiles((path,), read_lines)
                    break
    found = found or release_of(root, definition)
    return {split: found[split] for split in SPLITS if split in found}


@dataclasses.dataclass(frozen=True)
class FlanTask:
    """One data set with its templates and the files of its rows.

    Attributes:
      name: the data set's name.
      definition: how its rows become fields, see `tasks.flan.fields`.
      templates: the ways to ask.
      rows: the files of each split; none for rows that come from elsewhere.
    """

    name: str
    definition: Mapping[str, Any]
    templates: tuple[Template, ...]
    rows: Mapping[str, RowFiles] = dataclasses.field(default_factory=dict)

    @property
    def task_name(self) -> str:
        return f"{BENCHMARK}.{self.name}"

    @property
    def files(self) -> tuple[str, ...]:
        """What the examples are made of: the templates' files and those of the rows."""
        held = [str(file) for split in self.rows.values() for file in (*split.paths, *split.beside)]
        asked = dict.fromkeys(template.path for template in self.templates)
        return (*(path for path in asked if epath.Path(path).is_file()), *held)

    def card(self) -> TaskCard:
        definition = self.definition
        # What departs from the usual stands in the card, so that a store prepared otherwise is not reused.
        note = " (inverted templates too)" if any(template.inverted for template in self.templates) else ""
        return TaskCard(
            name=self.task_name,
            benchmark=BENCHMARK,
            category=canonical_category(BENCHMARK, definition.get("category", definition["cluster"])),
            source=self.name + note,
            metrics=_metrics(definition),
            licence=definition.get("licence", ""),
            url=_URL,
            languages=tuple(definition.get("languages", ["English"])),
        )

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """Each example of a split under each template, as fields of `Example`.

        Raises:
          InputError: a file is damaged, empty or of another form, or a template names an unknown field.
        """
        self.check()
        number = 0
        for path in self.rows[split].paths:
            before = number
            rows = RowFiles((path,), self.rows[split].read).rows()
            for number, row in enumerate(rows, start=before + 1):
                yield from self.render(row, f"{split}-{number}", path, number - before)
            if number == before:
                raise InputError("holds no example", path=path)

    def render(self, row: Row, uid: str, place: str | epath.Path, number: int) -> Iterator[dict[str, Any]]:
        """The examples that a row gives, the `number`th of a `place`, under each template.

        Raises:
          InputError: the row is not of the data set's form.
        """
        try:
            for part, instance in enumerate(instances(self.definition, row)):
                for template in self.templates:
                    yield {"uid": f"{uid}-{part}" if part else uid, **_example(template, instance)}
        except InputError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"row {number} is not of {self.name}'s form ({type(error).__name__}: {error!s:.100})"
            raise InputError(problem, path=place) from error

    def check(self) -> None:
        """Raises InputError if a template names a field that the data set does not have."""
        known = {
            *field_names(self.definition),
            ANSWER,
            *([OPTIONS] if self.definition.get("options") else ()),
        }
        for template in self.templates:
            template.check(known)


def _metrics(definition: Mapping[str, Any]) -> tuple[str, ...]:
    if definition.get("options"):
        return ("accuracy",)
    return ("rouge_l", "exact_match", *_BESIDE.get(definition["cluster"], ()))


def _example(template: Template, instance: Instance) -> dict[str, Any]:
    values = {**instance.fields, ANSWER: instance.answers[0], OPTIONS: options_block(instance.options)}
    target = fill(template.target, values)
    if template.inverted:
        references, candidates = [target], []
    else:
        references = [fill(template.target, {**values, ANSWER: answer}) for answer in instance.answers]
        candidates = [fill(template.target, {**values, ANSWER: option}) for option in instance.options]
    return {
        "source": fill(template.source, values),
        "target": target,
        "references": references,
        "candidates": candidates,
        "template": template.name,
    }
