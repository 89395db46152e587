"""Reads dialogues: what was said, in its order, as each data set's own files tell it.

Personas, settings, search results and other things that are no part of the conversation are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files
from tasks.files import field

Turns = list[str]

_NUMBERED = re.compile(r"(\d+) (.*)", re.DOTALL)
_MARK = re.compile(r"_([a-z_]+)(?: (.*))?", re.DOTALL)
_SILENCE = "<SILENCE>"
_SPOKEN = ("partner_say", "self_say")


def sgd(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Schema-Guided Dialogue: a list of dialogues with their turns."""
    for record in files.json_records(path):
        turns = field(record, "turns", list, path)
        yield field(record, "dialogue_id", str, path), [field(turn, "utterance", str, path) for turn in turns]


def taskmaster(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Taskmaster: a list of conversations, or a single one."""
    content = files.json_value(path)
    for record in content if isinstance(content, list) else [content]:
        turns = field(record, "utterances", list, path)
        yield field(record, "conversation_id", str, path), [field(turn, "text", str, path) for turn in turns]


def numbered(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Lines `N said<TAB>answered`, as in bAbI's dialogues and ConvAI2; a dialogue begins where N is 1.

    Lines without a tab (facts of a knowledge base, personas) are no turns, nor is bAbI's `<SILENCE>`.
    """
    start, turns, last = 1, [], 0
    for number, line in files.lines(path):
        found = _NUMBERED.fullmatch(line)
        if found is None:
            raise InputError("has no number before its text", path=path, line=number)
        if int(found[1]) <= last:
            yield str(start), turns
            start, turns = number, []
        last, parts = int(found[1]), found[2].split("\t")
        if len(parts) > 1:
            turns += [part.strip() for part in parts[:2] if part.strip() not in ("", _SILENCE)]
    if turns:
        yield str(start), turns


def chatterbot(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """ChatterBot's corpus: YAML with lists of turns."""
    import yaml

    try:
        # The base loader makes strings of all: "yes" and 42 are turns, not a truth and a number.
        content = yaml.load(files.text(path), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError("is not YAML", path=path, line=mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise InputError("is nested too deeply", path=path) from error
    for number, turns in enumerate(field(content, "conversations", list, path), start=1):
        # A dash forgotten in front of the first turn makes one text of a conversation.
        turns = [turns] if isinstance(turns, str) else turns
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise InputError(f"conversation {number} is no list of texts", path=path, field="conversations")
        yield str(number), turns


def wizard_of_wikipedia(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Wizard of Wikipedia (ParlAI): a list of records with `dialog`."""
    return _dialogs(enumerate(files.json_records(path), start=1), path)


def blended_skill_talk(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Blended Skill Talk (ParlAI): two given utterances, then turns as [speaker, text]."""
    for number, record in enumerate(files.json_records(path), start=1):
        given = [field(record, f"{who}_turker_utterance", str, path) for who in ("free", "guided")]
        turns = field(record, "dialog", list, path)
        if not all(isinstance(turn, list) and len(turn) == 2 and isinstance(turn[1], str) for turn in turns):
            raise InputError(
                f"record {number} has a turn that is not [speaker, text]", path=path, field="dialog"
            )
        yield str(number), [*given, *(text for _, text in turns)]


def multi_session_chat(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Multi-Session Chat (ParlAI): one session a line; the sessions before it stand in files of their own."""
    return _dialogs(files.json_lines(path), path)


def wizard_of_internet(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    """Wizard of Internet (ParlAI): one object a line, {id: dialogue}; searches are left out."""
    for number, record in files.json_lines(path):
        for uid, dialogue in record.items():
            turns = []
            for message in field(dialogue, "dialog_history", list, path, number):
                if "SearchAgent" not in field(message, "action", str, path, number):
                    turns.append(field(message, "text", str, path, number))
            yield uid, turns


def parlai_text(path: epath.Path) -> Iterator[tuple[str, Turns]]:
    r"""ParlAI's text format, in which LIGHT comes: `text:...<TAB>labels:...`, the last of an episode marked.

    Of LIGHT's lines only what is said is a turn (`_partner_say`, `_self_say`): no settings, no acts, no emotes.
    """
    start, turns = 1, []
    for number, line in files.lines(path):
        parts = dict(part.split(":", 1) for part in line.split("\t") if ":" in part)
        if "text" not in parts:
            raise InputError("has no part text:", path=path, line=number)
        text = parts["text"].replace("\\n", "\n").replace("\\t", "\t")
        turns += _spoken(text)
        for name in ("labels", "eval_labels"):
            if parts.get(name):
                turns += _spoken(parts[name].split("|")[0].replace("\\n", "\n"))
        if parts.get("episode_done", "").strip() == "True":
            yield str(start), _without_echo(turns)
            start, turns = number + 1, []
    if turns:
        yield str(start), _without_echo(turns)


def _dialogs(records: Iterator[tuple[int, Any]], path: epath.Path) -> Iterator[tuple[str, Turns]]:
    for number, record in records:
        turns = field(record, "dialog", list, path, number)
        yield str(number), [field(turn, "text", str, path, number) for turn in turns]


def _spoken(text: str) -> Turns:
    turns = []
    for line in text.split("\n"):
        mark = _MARK.fullmatch(line)
        if mark is None:
            turns.append(line)
        elif mark[1] in _SPOKEN:
            turns.append(mark[2] or "")
    return [turn.strip() for turn in turns if turn.strip()]


def _without_echo(turns: Turns) -> Turns:
    """LIGHT repeats each label as what `_self` said in the next line's text."""
    return [turn for place, turn in enumerate(turns) if not place or turn != turns[place - 1]]
