"""Files that are damaged anywhere are told of as bad input, and nothing else happens."""

import copy
import json
import random

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example
from iml.errors import InputError
from tasks import dialogue, reasoning, unified_skg
from tasks.reasoning import readers
from tests.tasks import registered
from tests.tasks.test_plain_text import PARLAI
from tests.tasks.test_reasoning import SETS as REASONING
from tests.tasks.test_unified_skg import SETS as STRUCTURED
from tests.tasks.test_unified_skg import write_pages

FAMILIES = [
    (module, folder, name, files)
    for module, folder, sets in (
        (unified_skg, "unified_skg", STRUCTURED),
        (reasoning, "reasoning", REASONING),
        (dialogue, "dialogue", PARLAI),
    )
    for name, (files, *_) in sets.items()
]
CACHED = (
    readers._commonsense_questions,
    unified_skg.queries._read_schemas,
    unified_skg.queries._intents,
    unified_skg.tables._by_id,
    unified_skg.tables._csv_table,
)
VALUES = (None, 3, -1, 2.5, True, "x", "", [], {}, [1], ["a"], {"a": 1}, [[1]], "A\ud800", 10**30)


@pytest.mark.parametrize(("module", "folder", "name", "files"), FAMILIES, ids=lambda value: str(value)[:20])
def test_a_damaged_file_is_bad_input_at_most(module, folder, name, files, tmp_path):
    chance = random.Random(f"{folder} {name}")
    for trial in range(12):
        registered.clear()
        for cached in CACHED:
            cached.cache_clear()
        damaged = chance.choice(sorted(files))
        for file, content in files.items():
            path = tmp_path / str(trial) / folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                write_pages(path)
                continue
            content = content.decode("latin-1") if isinstance(content, bytes) else content
            content = damage(content, chance) if file == damaged else content
            path.write_bytes(content.encode("latin-1" if file.endswith(".gz") else "utf-8", "surrogatepass"))
        module.register(str(tmp_path / str(trial)))
        for task in registry.names():
            for split in seqio_bridge.describe_source(task)[0]:
                try:
                    for fields in seqio_bridge.read_fields(task, split):
                        Example.from_json(fields).encode()
                except InputError as error:
                    assert str(tmp_path) in str(error)
    registered.clear()


def damage(content, chance):
    """A value of the file's JSON, or of one of its lines', put wrong or taken out; else some characters."""
    rows = content.split("\n")
    for place, row in ((None, content), *((place, rows[place]) for place in [chance.randrange(len(rows))])):
        try:
            changed = json.dumps(_change(json.loads(row), chance))
        except ValueError:
            continue
        return changed if place is None else "\n".join((*rows[:place], changed, *rows[place + 1 :]))
    characters = list(content)
    for _ in range(3):
        characters[chance.randrange(len(characters))] = chance.choice("\t\n,\"'x#\\ |")
    return "".join(characters)


def _change(value, chance):
    value = copy.deepcopy(value)
    path = chance.choice(list(_paths(value)))
    if not path:
        return chance.choice(VALUES)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if chance.random() < 0.25:
        del holder[path[-1]]
    else:
        holder[path[-1]] = chance.choice(VALUES)
    return value


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from _paths(child, (*path, key))
