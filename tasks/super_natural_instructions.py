"""Super-NaturalInstructions: one JSON file a task, as in github.com/allenai/natural-instructions (schema v2).

A task is `super_natural_instructions.<file name>`. Of the official test tasks the first 100 instances are the
`test` split, as in the official evaluation, and any others `train`; of every other task a tenth, at most 100,
is `validation`, chosen by a hash of the instances' ids, and the rest `train`. Whether a task is trained on is
for the split scheme to say.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError

BENCHMARK = "super_natural_instructions"
#: Instances of an official test task that are evaluated.
TEST_INSTANCES = 100
#: Share and largest number of another task's instances that are held back for validation.
VALIDATION_SHARE, VALIDATION_INSTANCES = 0.1, 100

_REMEDY = "See the task schema of allenai/natural-instructions v2"


def register(data_dir: str) -> None:
    """Registers every task file under `data_dir`; lists the folder and opens nothing but the split lists.

    Args:
      data_dir: holds `super_natural_instructions/` or is that folder: `tasks/*.json` and, if there is one,
        `splits/default/test_tasks.txt`.

    Raises:
      InputError: there are no task files.
    """
    home = epath.Path(data_dir)
    home = home / BENCHMARK if (home / BENCHMARK).is_dir() else home
    paths = sorted((home / "tasks").glob("*.json"))
    if not paths:
        raise InputError(
            "no task files here",
            path=home / "tasks",
            remedy="Name the folder that holds tasks/*.json as data_dir",
        )
    listed = home / "splits" / "default" / "test_tasks.txt"
    test_tasks = frozenset(listed.read_text(encoding="utf-8").split()) if listed.exists() else frozenset()
    for path in paths:
        add_file(path, is_test=path.stem in test_tasks)


def add_file(path: epath.Path, *, is_test: bool = False, name: str | None = None, **card: str) -> None:
    """Registers one task file.

    Args:
      is_test: whether it is one of the official test tasks.
      name: the task's name; from the file's name by default.
      card: fields of the card in place of those that the file gives.
    """
    name = name or f"{BENCHMARK}.{task_name(path.stem)}"
    seqio_bridge.add_task(
        functools.partial(_card, path, name, card),
        name=name,
        source=seqio_bridge.PythonSource(
            read=functools.partial(read_split, path, is_test=is_test),
            splits=("train", "test") if is_test else ("train", "validation"),
            files=(path,),
        ),
    )


def task_name(stem: str) -> str:
    """A file's name as SeqIO allows it in the name of a task: other characters become underscores."""
    return re.sub(r"[^\w.:#]", "_", stem)


def read_split(path: epath.Path, split: str, *, is_test: bool) -> Iterator[dict[str, Any]]:
    """The instances of one split of a task file, as fields of `Example`, in the file's order."""
    instances = list(read_instances(path))
    if is_test:
        held_out = {instance["uid"] for instance in instances[:TEST_INSTANCES]}
    else:
        size = min(VALIDATION_INSTANCES, round(VALIDATION_SHARE * len(instances)))
        size = max(size, 1) if len(instances) > 1 else 0
        ranked = sorted(instance["uid"] for instance in instances)
        ranked.sort(key=functools.partial(_place, path.stem))
        held_out = set(ranked[:size])
    return (instance for instance in instances if (instance["uid"] in held_out) == (split != "train"))


def read_instances(path: epath.Path) -> Iterator[dict[str, Any]]:
    """All instances of a task file, as fields of `Example`.

    Blank references are dropped where there are others. Older files have instances without an id, which get
    their place in the file, and a definition that is one string.

    Raises:
      InputError: the file is damaged, or a field is missing or of the wrong type.
    """
    record = _load(path)
    definition = _strings(record, "Definition", path)
    instruction = definition[0].strip() if definition else ""
    instances = record.get("Instances")
    if not isinstance(instances, list) or not instances:
        raise InputError(
            "must be a list with at least one instance", path=path, field="Instances", remedy=_REMEDY
        )
    seen: set[str] = set()
    for number, instance in enumerate(instances):
        field = f"Instances[{number}]"
        if not isinstance(instance, dict):
            raise InputError("must be an object", path=path, field=field, remedy=_REMEDY)
        source = instance.get("input")
        if not isinstance(source, str):
            raise InputError("must be a string", path=path, field=f"{field}.input", remedy=_REMEDY)
        references = _strings(instance, "output", path, f"{field}.output")
        if not references:
            raise InputError("has no reference", path=path, field=f"{field}.output", remedy=_REMEDY)
        references = [text for text in references if text.strip()] or references[:1]
        uid = str(instance.get("id") or f"{path.stem}-{number}")
        uid = uid if uid not in seen else f"{uid}-{number}"
        seen.add(uid)
        yield {
            "uid": uid,
            "instruction": instruction,
            "source": source,
            "target": references[0],
            "references": references,
        }


def _card(path: epath.Path, name: str, given: Mapping[str, str]) -> TaskCard:
    record = _load(path)
    fields: dict[str, Any] = {
        "name": name,
        "benchmark": BENCHMARK,
        "instruction_level": "task",
        "source": ", ".join(_strings(record, "Source", path, optional=True)),
        "metrics": ("rouge_l", "exact_match"),
        "licence": ", ".join(_strings(record, "Instance License", path, optional=True)),
        "url": next(iter(_strings(record, "URL", path, optional=True)), ""),
        "languages": tuple(_strings(record, "Output_language", path, optional=True)) or ("English",),
        **given,
    }
    if "category" not in fields:
        category = _strings(record, "Categories", path)
        if not category:
            raise InputError("a task needs a category", path=path, field="Categories", remedy=_REMEDY)
        try:
            fields["category"] = canonical_category(BENCHMARK, category[0])
        except InputError as error:
            raise InputError(error.problem, path=path, field="Categories", remedy=error.remedy) from error
    return TaskCard(**fields)


def _place(task: str, uid: str) -> bytes:
    return hashlib.blake2b(f"{task} {uid}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


@functools.lru_cache(maxsize=2)
def _load(path: epath.Path) -> dict[str, Any]:
    """The file's object; the latest are kept, since a task's card and splits are read one after the other."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "not UTF-8 text", path=path, remedy=f"Byte {error.start} is the first bad one"
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        problem = "the file is empty" if not text.strip() else f"not JSON: {error.msg}"
        raise InputError(problem, path=path, line=error.lineno, remedy="Is the file complete?") from error
    if not isinstance(record, dict):
        raise InputError("must be a JSON object", path=path, remedy=_REMEDY)
    return record


def _strings(
    record: Mapping[str, Any], name: str, path: epath.Path, field: str | None = None, optional: bool = False
) -> list[str]:
    """A field that holds a string or a list of strings, as a list."""
    field = field or name
    if name not in record:
        if optional:
            return []
        raise InputError("this field is missing", path=path, field=field, remedy=_REMEDY)
    value = record[name]
    value = [value] if isinstance(value, str) else value
    if optional and isinstance(value, list):
        value = [item for item in value if isinstance(item, str)]  # a hundred files have "URL": [NaN]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError("must be a string or a list of strings", path=path, field=field, remedy=_REMEDY)
    return value
