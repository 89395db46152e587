"""A few predictions of every task for a report, those of several results on one prompt together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Prediction = Mapping[str, Any]

#: Prompts shown of each task and number of shots.
PER_TASK = 2
#: Characters shown of a text; of a longer one, its beginning and its end.
LONGEST = 2400


@dataclasses.dataclass(frozen=True)
class Sample:
    """One prompt and what was answered.

    Attributes:
      task: name of the task.
      told: which row, template and demonstrations it is from.
      prompt: what the model read, perhaps cut.
      references: the right answers.
      candidates: the answers to choose between, or ().
      answers: title of the result, its answer, and the answer's metrics.
    """

    task: str
    told: str
    prompt: str
    references: tuple[str, ...]
    candidates: tuple[str, ...]
    answers: tuple[tuple[str, str, str], ...]


def choose(
    predictions: Sequence[Sequence[Prediction]], titles: Sequence[str], per_task: int = PER_TASK
) -> dict[str, list[Sample]]:
    """By task, samples of the first rows at each number of shots.

    Args:
      predictions: of each result; the last result's rows are shown, the others' answers to the same rows
        beside them.
      titles: of the results.
      per_task: prompts of each task and number of shots.
    """
    chosen: dict[tuple[str, int], list[Prediction]] = defaultdict(list)
    for line in sorted(predictions[-1], key=lambda line: (line["task"], line["shots"], line["row"])):
        group = chosen[line["task"], line["shots"]]
        if len(group) < per_task:
            group.append(line)
    wanted = {_key(line) for group in chosen.values() for line in group}
    answers = [{_key(line): line for line in lines if _key(line) in wanted} for lines in predictions]
    samples: dict[str, list[Sample]] = defaultdict(list)
    for (task, _), group in chosen.items():
        for line in group:
            found = [(title, lines.get(_key(line))) for title, lines in zip(titles, answers, strict=True)]
            # Another seed asks another prompt of the same row.
            asked = [(title, other) for title, other in found if other and other["prompt"] == line["prompt"]]
            samples[task].append(_sample(line, asked))
    return dict(samples)


def shorten(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and end with the number of characters left out between them."""
    if len(text) <= longest:
        return text
    head, tail = longest // 3, longest - longest // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters …]\n{text[-tail:]}"


def _sample(line: Prediction, answers: Sequence[tuple[str, Prediction]]) -> Sample:
    told = [f"{line['shots']}-shot", f"{line['split']} row {line['row']}"]
    if line.get("template"):
        told.append(f"template {line['template']}")
    if line.get("demonstrations"):
        told.append(f"demonstrations {', '.join(line['demonstrations'])}")
    return Sample(
        line["task"],
        ", ".join(told),
        shorten(line["prompt"]),
        tuple(map(shorten, line["references"])),
        tuple(map(shorten, line["candidates"])),
        tuple((title, shorten(other["prediction"]), _metrics(other)) for title, other in answers),
    )


def _metrics(line: Prediction) -> str:
    told = [f"{name} {value:.1f}" for name, value in line["metrics"].items()]
    told += [*line["flags"], *([f"{line['truncated']} tokens cut"] if line["truncated"] else [])]
    return ", ".join(told)


def _key(line: Prediction) -> tuple[str, int, int]:
    return line["task"], line["shots"], line["row"]
