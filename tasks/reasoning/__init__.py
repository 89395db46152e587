"""The chain-of-thought data sets: the target is the reasoning and then "The answer is ...".

A task is `reasoning.<set>`; `tasks/definitions/reasoning.json` says which files a set is read from. The form is
that of OPT-IML's appendix C: a task-level instruction, the question and, on a line of its own, the options with
commas between them. The final answer is a reference beside the target, so that it can be scored by itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import layouts
from tasks.definitions import load
from tasks.reasoning import more_readers as more
from tasks.reasoning import readers
from tasks.reasoning.readers import Problem, sentences

BENCHMARK = "reasoning"
#: Where FLAN's chain-of-thought files may lie, from the data folder.
_COT_FOLDERS = (
    "flan2022/cot_data",
    "flan/cot_data",
    "cot_data",
    "reasoning/cot_data",
    "../flan2022/cot_data",
)

READERS: Mapping[str, Callable[[epath.Path, str], Iterator[Problem]]] = {
    reader.__name__: reader
    for reader in (
        readers.aqua,
        readers.cos_e,
        readers.creak,
        readers.ecqa,
        readers.gsm8k,
        readers.qasc,
        readers.qed,
        readers.strategyqa,
        more.coqa,
        more.esnli,
        more.math,
        more.proofwriter,
        more.sensemaking,
        more.winowhy,
    )
}


@functools.cache
def definitions() -> Mapping[str, Any]:
    """The sets by name, and the instructions by kind of set."""
    return load("reasoning.json")


@dataclasses.dataclass(frozen=True)
class ReasoningTask:
    """One set: its files by split and how it is read.

    Attributes:
      name: a key of `definitions()["sets"]`.
      home: the folder of all the sets.
      files: the files of each split.
    """

    name: str
    home: epath.Path
    files: layouts.Splits

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`, in the order of its files.

        Problems without a rationale are left out of the train split: they would teach to skip the reasoning.

        Raises:
          InputError: a file is missing, damaged or without any example.
        """
        known = definitions()
        definition, paths, seen = known["sets"][self.name], self.files[split], set()
        instruction = known["instructions"][definition.get("kind", "question")]
        for path in paths:
            reader = readers.cot if path.name.endswith(".tsv") else READERS[definition["reader"]]
            for problem in layouts.guarded(reader(path, split), path):
                if split == "train" and not problem.rationale.strip():
                    continue
                uid = problem.uid if len(paths) == 1 else f"{layouts.label(self.home, path)}-{problem.uid}"
                uid = uid if uid not in seen else f"{uid}-{len(seen)}"
                seen.add(uid)
                yield {"uid": uid, **fields(problem, instruction)}
        if not seen:
            raise InputError("holds no example with a rationale", path=paths[0])


def fields(problem: Problem, instruction: str) -> dict[str, Any]:
    """A problem as fields of `Example`, its uid left out."""
    options = ", ".join(problem.options)
    rationale = problem.rationale.strip()
    target = " ".join(filter(None, (sentences([rationale]), f"The answer is {problem.answer}")))
    return {
        "instruction": instruction,
        "source": f"{problem.question.strip()}\n{options}" if options else problem.question.strip(),
        "target": target,
        "references": list(dict.fromkeys((target, problem.answer, *problem.also))),
        "rationale": rationale,
    }


def register(data_dir: str) -> None:
    """Registers every set of which some file is there; opens no data file.

    Args:
      data_dir: holds `reasoning/`, or is that folder: one folder a set. FLAN's `<set>_train.tsv`, in
        `flan2022/cot_data` or `flan/cot_data`, are the train split of sets that have none.

    Raises:
      InputError: there is no set.
    """
    home = epath.Path(data_dir)
    cot = layouts.first_folder(home, _COT_FOLDERS)
    home = layouts.first_folder(home, (BENCHMARK,)) or home
    found = 0
    for name, definition in definitions()["sets"].items():
        splits = layouts.find_splits(home, definition["files"])
        if cot is not None and "train" not in splits and (cot / f"{name}_train.tsv").exists():
            splits = {"train": (cot / f"{name}_train.tsv",), **splits}
        if not splits:
            continue
        found += 1
        used = dict.fromkeys(path for paths in splits.values() for path in paths)
        source = seqio_bridge.PythonSource(
            read=ReasoningTask(name, home, splits).read, splits=tuple(splits), files=tuple(used)
        )
        seqio_bridge.add_task(card(name), source=source)
    if not found:
        remedy = "Name the folder that holds reasoning/gsm8k, reasoning/creak and so on as data_dir"
        raise InputError("no chain-of-thought set is here", path=home, remedy=remedy)


def card(name: str) -> TaskCard:
    """The card of a set."""
    definition = definitions()["sets"][name]
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, "chain of thought"),
        instruction_level="task",
        source=name,
        parent=definition.get("parent", ""),
        metrics=tuple(definition.get("metrics", ("rouge_l", "exact_match"))),
        licence=definition.get("licence", ""),
        url=definition["url"],
    )
