"""BIG-Bench Hard with and without chains of thought, from github.com/suzgunmirac/BIG-Bench-Hard. Evaluation only.

Every file gives two tasks: `bbh.<task>` asks for the answer, `bbh.<task>_cot` for the reasoning that leads to it.
The three exemplars of `cot-prompts/<task>.txt` serve both, with their reasoning or with the answer at its end.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files
from tasks.definitions import load

BENCHMARK = "bbh"
#: What the reasoning follows, and what the answer follows in it.
TRIGGER, CONCLUSION = "Let's think step by step.", "So the answer is "

_EXEMPLAR = re.compile(
    rf"Q: (?P<question>.+?)\nA: {re.escape(TRIGGER)}(?P<rationale>.+?{CONCLUSION}(?P<answer>.+?)\.)\s*\Z",
    re.S,
)


def register(data_dir: str) -> None:
    """Registers every task file, twice where it has a prompt file; lists the folders and opens no file.

    Args:
      data_dir: holds `bbh/` or is that folder: `bbh/*.json` and `cot-prompts/*.txt`.

    Raises:
      InputError: there is no task file.
    """
    given = epath.Path(data_dir)
    home = next((folder for folder in (given / "bbh", given) if (folder / "bbh").is_dir()), given / "bbh")
    paths = sorted((home / "bbh").glob("*.json")) if (home / "bbh").is_dir() else []
    if not paths:
        raise InputError(
            "BIG-Bench Hard's task files are not here",
            path=home / "bbh",
            remedy="Copy the folders bbh/ and cot-prompts/ of suzgunmirac/BIG-Bench-Hard",
        )
    for path in paths:
        prompt = home / "cot-prompts" / f"{path.stem}.txt"
        if prompt.exists():
            _add(os.fspath(path), os.fspath(prompt), path.stem, with_reasoning=False)
            _add(os.fspath(path), os.fspath(prompt), path.stem, with_reasoning=True)
        else:
            _add(os.fspath(path), "", path.stem, with_reasoning=False)


def read(path: str, prompt: str, with_reasoning: bool, split: str) -> Iterator[dict[str, Any]]:
    """The exemplars or the test rows of one task, as fields of `Example`.

    Raises:
      InputError: a file is damaged, or the prompt has no exemplars.
    """
    instruction, exemplars = read_prompt(prompt) if prompt else ("", [])
    cue = f"A: {TRIGGER}" if with_reasoning else "A:"
    # The blank line after the instruction is the benchmark's.
    common = {"instruction": f"{instruction}\n" if instruction else ""}
    if split == "exemplars":
        for number, shown in enumerate(exemplars):
            target = shown["rationale"].strip() if with_reasoning else shown["answer"]
            source = f"Q: {shown['question']}\n{cue}"
            yield {**common, "uid": f"exemplar-{number}", "source": source, "target": target}
        return
    rows = files.field(files.json_value(path), "examples", list, path)
    for number, row in enumerate(rows):
        question, target = (files.field(row, name, str, path) for name in ("input", "target"))
        yield {**common, "uid": str(number), "source": f"Q: {question}\n{cue}", "target": target}


def read_prompt(path: str) -> tuple[str, list[dict[str, str]]]:
    """A chain-of-thought prompt: its instruction, and question, rationale and answer of its exemplars.

    Raises:
      InputError: it has not the form of the benchmark's prompt files.
    """
    _, rule, body = files.text(path).replace("\r\n", "\n").partition("\n-----\n")
    # Questions hold blank lines of their own, but none of them begins a line with "Q: ".
    instruction, *parts = re.split(r"\n\n(?=Q: )", body.strip())
    found = [_EXEMPLAR.match(part) for part in parts]
    if not rule or not found or None in found:
        raise InputError(
            "is no prompt of BIG-Bench Hard",
            path=path,
            remedy=f"Below a line ----- it has an instruction and exemplars Q: ... A: {TRIGGER} ... {CONCLUSION}X.",
        )
    return instruction, [match.groupdict() for match in found if match]


def _add(path: str, prompt: str, task: str, *, with_reasoning: bool) -> None:
    suffix = "_cot" if with_reasoning else ""
    parent = _parents().get(task)
    seqio_bridge.add_task(
        TaskCard(
            name=f"{BENCHMARK}.{task}{suffix}",
            benchmark=BENCHMARK,
            category=canonical_category(BENCHMARK, "BIG-Bench Hard"),
            instruction_level="task",
            source=f"bbh/{task}{suffix}",
            parent=f"{parent}{suffix}" if parent else "",
            metrics=("final_answer",),
            licence="MIT",
            url="https://github.com/suzgunmirac/BIG-Bench-Hard",
        ),
        source=seqio_bridge.PythonSource(
            read=functools.partial(read, path, prompt, with_reasoning),
            splits=("exemplars", "test") if prompt else ("test",),
            files=(path, prompt) if prompt else (path,),
        ),
    )


@functools.cache
def _parents() -> dict[str, str]:
    return load("bbh.json")["parents"]
