"""A few predictions of every task for a report, those of several results on one prompt together.

An answer is called right where its task's metric gives it all points, and wrong otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from iml.evaluation.metrics import accuracy

Prediction = Mapping[str, Any]

#: Prompts shown of each task and number of shots.
PER_TASK = 4
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
      kinds: which of "right", "wrong" and "changed" (not the same for all results) the answers are.
    """

    task: str
    told: str
    prompt: str
    references: tuple[str, ...]
    candidates: tuple[str, ...]
    answers: tuple[tuple[str, str, str], ...]
    kinds: tuple[str, ...] = ()


def choose(
    predictions: Sequence[Sequence[Prediction]],
    titles: Sequence[str],
    metrics: Mapping[str, str],
    per_task: int = PER_TASK,
    longest: int = LONGEST,
) -> dict[str, list[Sample]]:
    """By task, samples at each number of shots: its first wrong and its first right answers, half of each.

    Args:
      predictions: of each result; the last result's answers are chosen from, the others' answers to the same
        rows stand beside them.
      titles: of the results.
      metrics: by task, the metric that tells right from wrong.
      per_task: prompts of each task and number of shots.
      longest: characters shown of a text.
    """
    groups: dict[tuple[str, int], list[Prediction]] = defaultdict(list)
    for line in sorted(predictions[-1], key=lambda line: (line["task"], line["shots"], line["row"])):
        groups[line["task"], line["shots"]].append(line)
    chosen = {key: _mixed(lines, metrics[key[0]], per_task) for key, lines in groups.items()}
    wanted = {_key(line) for group in chosen.values() for line in group}
    answers = [{_key(line): line for line in lines if _key(line) in wanted} for lines in predictions]
    samples: dict[str, list[Sample]] = defaultdict(list)
    for (task, _), group in chosen.items():
        for line in group:
            found = [(title, lines.get(_key(line))) for title, lines in zip(titles, answers, strict=True)]
            # Another seed asks another prompt of the same row.
            asked = [(title, other) for title, other in found if other and other["prompt"] == line["prompt"]]
            samples[task].append(describe(line, asked, metrics[task], longest))
    return dict(samples)


def points(line: Prediction, metric: str) -> float:
    """What an answer scores, from 0 to 100; by a metric that scores no single answer, all or nothing."""
    found = line["metrics"].get(metric)
    return accuracy(line["prediction"], line["references"]) if found is None else float(found)


def right(line: Prediction, metric: str) -> bool:
    """Whether an answer has all points."""
    return points(line, metric) >= 100.0


def shorten(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and end with the number of characters left out between them."""
    if len(text) <= longest:
        return text
    head, tail = longest // 3, longest - longest // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters …]\n{text[-tail:]}"


def describe(
    line: Prediction, answers: Sequence[tuple[str, Prediction]], metric: str, longest: int = LONGEST
) -> Sample:
    """A prompt with the answers to it, by the titles of the results."""
    told = [f"{line['shots']}-shot", f"{line['split']} row {line['row']}"]
    if line.get("template"):
        told.append(f"template {line['template']}")
    if line.get("demonstrations"):
        told.append(f"demonstrations {', '.join(line['demonstrations'])}")
    cut = functools.partial(shorten, longest=longest)
    return Sample(
        line["task"],
        ", ".join(told),
        cut(line["prompt"]),
        tuple(map(cut, line["references"])),
        tuple(map(cut, line["candidates"])),
        tuple((title, cut(other["prediction"]), _metrics(other)) for title, other in answers),
        _kinds([right(other, metric) for _, other in answers]),
    )


def _mixed(lines: Sequence[Prediction], metric: str, count: int) -> list[Prediction]:
    wrong = [line for line in lines if not right(line, metric)]
    fine = [line for line in lines if right(line, metric)]
    share = max(count - len(fine), (count + 1) // 2)
    return [*wrong[:share], *fine[: count - len(wrong[:share])]]


def _kinds(verdicts: Sequence[bool]) -> tuple[str, ...]:
    kinds = ["right" if verdict else "wrong" for verdict in dict.fromkeys(verdicts)]
    return (*kinds, *(["changed"] if len(kinds) > 1 else []))


def _metrics(line: Prediction) -> str:
    told = [f"{name} {value:.1f}" for name, value in line["metrics"].items()]
    told += [*line["flags"], *([f"{line['truncated']} tokens cut"] if line["truncated"] else [])]
    return ", ".join(told)


def _key(line: Prediction) -> tuple[str, int, int]:
    return line["task"], line["shots"], line["row"]
