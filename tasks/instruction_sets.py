"""Collections of instructions and answers: Alpaca, Dolly, OpenAssistant, Self-Instruct, tool calls.

They are none of the bench's families: a mixture trains on them if it names the benchmark `instruction`. The
instruction stands in the source. Of a conversation every answer is one example, with all that went before.
`tasks/definitions/instruction_sets.json` says which files a set is read from.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts

BENCHMARK = "instruction"

#: uid, source and target of an example.
Row = tuple[str, str, str]

_DEFINITIONS = pathlib.Path(__file__).parent / "definitions" / "instruction_sets.json"
_SPEAKERS = {"human": "Human", "gpt": "Assistant", "function_call": "Assistant", "observation": "Observation"}


def register(data_dir: str) -> None:
    """Registers every set of which some file is there; opens no data file.

    Args:
      data_dir: holds `instruction/`, or is that folder: one folder a set.

    Raises:
      InputError: there is no set.
    """
    given = epath.Path(data_dir)
    home = layouts.first_folder(given, (BENCHMARK,)) or given
    found = {name: layouts.find_splits(home, known["files"]) for name, known in definitions().items()}
    if not any(found.values()):
        remedy = "Name the folder that holds instruction/alpaca, instruction/dolly and so on as data_dir"
        raise InputError("no collection of instructions is here", path=home, remedy=remedy)
    for name, splits in found.items():
        if splits:
            paths = {split: tuple(map(os.fspath, several)) for split, several in splits.items()}
            used = [path for several in paths.values() for path in several]
            source = seqio_bridge.PythonSource(
                read=functools.partial(read, name, paths),
                splits=tuple(paths),
                files=(*used, os.fspath(_DEFINITIONS)),
            )
            seqio_bridge.add_task(card(name), source=source)


def card(name: str) -> TaskCard:
    """The card of a set."""
    known = definitions()[name]
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, known.get("category", "Instruction Following")),
        source=name,
        licence=known["licence"],
        url=known["url"],
    )


def read(name: str, paths: Mapping[str, Sequence[str]], split: str) -> Iterator[dict[str, Any]]:
    """The examples of a split, as fields of `Example`.

    Raises:
      InputError: a file is damaged.
    """
    for number, path in enumerate(paths[split]):
        prefix = f"{number}-" if len(paths[split]) > 1 else ""
        for uid, source, target in READERS[definitions()[name]["reader"]](path):
            yield {"uid": f"{prefix}{uid}", "source": source, "target": target}


@functools.cache
def definitions() -> Mapping[str, Any]:
    """By name of the set, what the definitions say of it."""
    return json.loads(_DEFINITIONS.read_text(encoding="utf-8"))["sets"]


def alpaca(path: str) -> Iterator[Row]:
    """A list of {instruction, input, output}."""
    for number, row in enumerate(files.json_records(path)):
        instruction, given, answer = (
            files.field(row, n, str, path) for n in ("instruction", "input", "output")
        )
        yield str(number), _joined(instruction, given), answer


def self_instruct(path: str) -> Iterator[Row]:
    """JSON lines {id, instruction, instances: [{input, output}]}; one example an instance."""
    for line, row in files.json_lines(path):
        uid, instruction = (files.field(row, name, str, path, line) for name in ("id", "instruction"))
        for number, instance in enumerate(files.field(row, "instances", list, path, line)):
            given, answer = (files.field(instance, name, str, path, line) for name in ("input", "output"))
            yield f"{uid}-{number}", _joined(instruction, given), answer


def dolly(path: str) -> Iterator[Row]:
    """JSON lines {instruction, context, response}."""
    for line, row in files.json_lines(path):
        instruction, given, answer = (
            files.field(row, name, str, path, line) for name in ("instruction", "context", "response")
        )
        yield str(line), _joined(instruction, given), answer


def oasst(path: str) -> Iterator[Row]:
    """OpenAssistant's trees of messages: to every prompt the reply that was ranked first."""
    for line, row in files.json_lines(path):
        root = files.field(row, "prompt", dict, path, line) if "prompt" in row else row
        pending: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [(root, [])]
        while pending:
            message, before = pending.pop()
            role = files.field(message, "role", str, path, line)
            text = files.field(message, "text", str, path, line)
            turns = [*before, ("Human" if role == "prompter" else "Assistant", text)]
            replies = [reply for reply in message.get("replies") or () if not reply.get("deleted")]
            pending += [(reply, turns) for reply in reversed(replies)]
            if role == "prompter" and replies:
                best = min(replies, key=lambda reply: (reply.get("rank") is None, reply.get("rank") or 0))
                uid, answer = (files.field(best, name, str, path, line) for name in ("message_id", "text"))
                yield uid, _conversation(turns), answer


def marked_turns(path: str) -> Iterator[Row]:
    """JSON lines {input, output}, the input one text with turns marked `### Human:` and `### Assistant:`."""
    for line, row in files.json_lines(path):
        text, answer = (files.field(row, name, str, path, line) for name in ("input", "output"))
        parts = re.split(r"\s*### (Human|Assistant):\s*", text)
        turns = list(zip(parts[1::2], parts[2::2], strict=True))
        if len(turns) < 2 or turns[-1] != ("Assistant", ""):
            problem = 'does not end with a turn and "### Assistant:"'
            raise InputError(problem, path=path, line=line, field="input")
        yield str(line), _conversation(turns[:-1]), answer


def sharegpt(path: str) -> Iterator[Row]:
    """A list of {conversations: [{from, value}], tools}; one example an answer or call of a function."""
    for number, row in enumerate(files.json_records(path)):
        tools = files.field(row, "tools", str, path) if "tools" in row else ""
        turns: list[tuple[str, str]] = []
        for place, turn in enumerate(files.field(row, "conversations", list, path)):
            speaker, value = (files.field(turn, name, str, path) for name in ("from", "value"))
            if speaker not in _SPEAKERS:
                raise InputError(
                    f"conversation {number} has an unknown speaker {speaker!r:.40}",
                    path=path,
                    field="from",
                    remedy=f"Known: {', '.join(_SPEAKERS)}",
                )
            if _SPEAKERS[speaker] == "Assistant" and turns:
                before = f"Tools: {tools}\n" if tools else ""
                yield f"{number}-{place}", before + _conversation(turns, marked=bool(tools)), value
            turns.append((_SPEAKERS[speaker], value))


READERS: Mapping[str, Callable[[str], Iterator[Row]]] = {
    reader.__name__: reader for reader in (alpaca, self_instruct, dolly, oasst, marked_turns, sharegpt)
}


def _joined(instruction: str, given: str) -> str:
    return f"{instruction.strip()}\n\n{given.strip()}" if given.strip() else instruction.strip()


def _conversation(turns: Sequence[tuple[str, str]], marked: bool = False) -> str:
    """A single turn as it is; several with their speakers, and the one whose turn it is."""
    if len(turns) == 1 and not marked:
        return turns[0][1].strip()
    return "\n".join([*(f"{speaker}: {text.strip()}" for speaker, text in turns), "Assistant:"])
