"""Reads PromptSource's templates.yaml safely: two tags are known, every other one is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml
from etils import epath

from iml.errors import InputError

#: PromptSource's metrics, lower-cased, to the bench's. What is generated is scored by Rouge-L first, as in the
#: paper; the set's own metric stands beside it.
METRICS = {
    "accuracy": ("accuracy",),
    "bleu": ("rouge_l", "bleu"),
    "squad": ("rouge_l", "squad_f1", "squad_em"),
    "pearson correlation": ("rouge_l", "pearson"),
    "spearman correlation": ("rouge_l", "spearman"),
}


@dataclasses.dataclass(frozen=True)
class Template:
    """One template of a data set.

    Attributes:
      id: its key in the file.
      name: its name, unique within the data set.
      jinja: prompt and target, parted by `|||`.
      answer_choices: the answers parted by `|||`, possibly Jinja themselves; None for an open answer.
      metrics: names in `iml.evaluation.metrics`.
      original_task: whether it asks for what the data set was made for.
    """

    id: str
    name: str
    jinja: str
    answer_choices: str | None
    metrics: tuple[str, ...]
    original_task: bool


class _Loader(yaml.SafeLoader):
    """YAML without Python objects."""


def _mapping(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, f"{node.tag} must be a mapping", node.start_mark)
    return {**loader.construct_mapping(node, deep=True), "line__": node.start_mark.line + 1}


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def read_templates(path: epath.Path) -> tuple[Template, ...]:
    """The templates of one file, in its order.

    Raises:
      InputError: the file is missing, is not UTF-8 or YAML, has an unknown tag, or lacks a field.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(
            f"not a file of templates: {problem}", path=path, line=mark and mark.line + 1
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"not a file of templates: {error}", path=path) from error
    found = document.get("templates") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise InputError("there is no mapping of templates", path=path, field="templates")
    return tuple(_template(path, str(key), record) for key, record in found.items())


def _template(path: epath.Path, key: str, record: Any) -> Template:
    line = record.get("line__") if isinstance(record, dict) else None
    fields: Mapping[str, Any] = record if line else {}

    def field(name: str, types: type | tuple[type, ...]) -> Any:
        if name not in fields:
            raise InputError(f"template {key} lacks this field", path=path, line=line, field=name)
        value = fields[name]
        if not isinstance(value, types):
            raise InputError(f"template {key} has {value!r:.60} here", path=path, line=line, field=name)
        return value

    metadata = field("metadata", dict)
    if not isinstance(metadata.get("original_task"), bool | None):
        raise InputError(
            f"template {key} must say true or false", path=path, line=line, field="original_task"
        )
    metrics = metadata.get("metrics") or ()
    if not isinstance(metrics, list | tuple) or not all(isinstance(name, str) for name in metrics):
        raise InputError(f"template {key} must list names", path=path, line=line, field="metrics")
    answer_choices = field("answer_choices", (str, type(None)))
    names = [found for name in metrics for found in METRICS.get(name.casefold(), ("rouge_l",))]
    if answer_choices is None:  # There is nothing to rank.
        names = ["exact_match" if name == "accuracy" else name for name in names]
    return Template(
        id=key,
        name=field("name", str),
        jinja=field("jinja", str),
        answer_choices=answer_choices,
        metrics=tuple(dict.fromkeys(names)) or ("rouge_l",),
        original_task=bool(metadata.get("original_task")),
    )
