"""FLAN's templates: a mapping from data sets to named pairs of texts with `{field}` in them, and their filling in.

A file of templates is YAML, `{data set: [{name: ..., source: ..., target: ..., inverted: false}]}`; a Python
module may offer the same mapping as `TEMPLATES`. `{field}` stands for a field of the data set, `{answer}` for the
answer and `{options_}` for the block of options that FLAN prints. Nothing else is done with braces: no
attributes, indices, formats or expressions.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import yaml

from iml.errors import InputError
from tasks import files

Templates = Mapping[str, tuple["Template", ...]]

#: The answer, and the block that lists what it is chosen from.
ANSWER, OPTIONS = "answer", "options_"
_HOLE = re.compile(r"\{([^{}]*)\}")
_KEYS = {"name": str, "source": str, "target": str, "inverted": bool}


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """One way to ask for a data set's answers.

    Attributes:
      name: unique within the data set.
      source: the input, with `{field}` where a field goes.
      target: the output, likewise.
      inverted: whether something else than the data set's answer is asked for.
      path: the file or module it stands in.
      dataset: the data set it is for.
    """

    name: str
    source: str
    target: str = "{answer}"
    inverted: bool = False
    path: str = ""
    dataset: str = ""

    def holes(self) -> Iterator[tuple[str, str]]:
        """("source" or "target", field) of every field that is named."""
        for part in ("source", "target"):
            yield from ((part, name) for name in _HOLE.findall(getattr(self, part)))

    def check(self, known: Collection[str]) -> None:
        """Raises InputError if a field is named that the data set does not have, naming all four."""
        for part, name in self.holes():
            if name not in known:
                problem = f"template {self.name!r:.80} of {self.dataset} has an unknown field in its {part}"
                raise InputError(
                    problem,
                    path=self.path,
                    field=name[:80],
                    remedy=f"Fields of {self.dataset}: {', '.join(sorted(known))}",
                )


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with each `{name}` replaced by its value once; braces within values stay as they are."""
    return _HOLE.sub(lambda hole: values[hole[1]], text)


def options_block(options: Sequence[str]) -> str:
    """The options as FLAN prints them: a heading, then a dash and an option a line."""
    return "\n- ".join(["OPTIONS:", *options])


def read_templates(where: str | os.PathLike[str]) -> Templates:
    """The templates of a file (its name ends in .yaml or .yml), or of a module by its name.

    Raises:
      InputError: it cannot be read, or a template is not of the documented form.
    """
    where = os.fspath(where)
    if where.endswith((".yaml", ".yml")):
        document = _load(where)
    else:
        try:
            document = importlib.import_module(where).TEMPLATES
        except (ImportError, AttributeError, ValueError) as error:
            remedy = "Name a .yaml file, or a module that has a mapping TEMPLATES"
            raise InputError(f"offers no templates ({error})", path=where, remedy=remedy) from error
    if not isinstance(document, Mapping):
        raise InputError("must be a mapping from data sets to lists of templates", path=where)
    return {_name(dataset, where): _templates(where, dataset, found) for dataset, found in document.items()}


def _load(path: str) -> Any:
    # libyaml's loader, which is as safe, is ten times as fast where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files.text(path)
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = f"is not YAML: {getattr(error, 'problem', None) or type(error).__name__}"
        raise InputError(problem, path=path, line=mark and mark.line + 1) from error
    except (RecursionError, ValueError) as error:
        raise InputError("is not YAML: nested too deeply, or a bad value", path=path) from error


def _name(dataset: Any, where: str) -> str:
    if not isinstance(dataset, str):
        raise InputError(f"a data set's name must be a string, not {type(dataset).__name__}", path=where)
    return dataset


def _templates(where: str, dataset: str, found: Any) -> tuple[Template, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise InputError("must be a list of templates", path=where, field=dataset)
    templates = tuple(
        _template(where, dataset, number, record) for number, record in enumerate(found, start=1)
    )
    names = [template.name for template in templates]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(f"has two templates of the name {double!r:.80}", path=where, field=dataset)
    return templates


def _template(where: str, dataset: str, number: int, record: Any) -> Template:
    at = f"{dataset}[{number}]"
    if not isinstance(record, Mapping):
        raise InputError("a template must be a mapping", path=where, field=at)
    unknown = [key for key in record if key not in _KEYS]
    if unknown:
        remedy = f"Known: {', '.join(_KEYS)}"
        raise InputError(
            "a template has an unknown key", path=where, field=f"{at}.{unknown[0]!s:.60}", remedy=remedy
        )
    for key, kind in _KEYS.items():
        # The value itself is not shown: through YAML's aliases a short file can hold an endless one.
        if key in record and not isinstance(record[key], kind):
            wanted = "true or false" if kind is bool else "a string"
            problem = f"must be {wanted}, not {type(record[key]).__name__}"
            raise InputError(problem, path=where, field=f"{at}.{key}")
    if not record.get("name") or not record.get("source"):
        raise InputError("a template needs a name and a source", path=where, field=at)
    template = Template(**record, path=where, dataset=dataset)
    if not template.inverted and ANSWER not in _HOLE.findall(template.target):
        remedy = "Say inverted: true of a template that asks for something else"
        raise InputError("the target does not hold {answer}", path=where, field=f"{at}.target", remedy=remedy)
    return template
