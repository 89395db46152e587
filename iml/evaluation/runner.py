"""From a suite to predictions: one queue of requests over all tasks and shots, saved task by task."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from iml.data.store import ExampleStore
from iml.errors import InputError
from iml.evaluation import metrics, ranking
from iml.evaluation.engines.engine import Engine, Progress
from iml.evaluation.progress import Watch, estimate, weight
from iml.evaluation.requests import Request, Selected, make_requests
from iml.evaluation.results.results_folder import Prediction, ResultsFolder
from iml.evaluation.suites import Suite

#: Requests that are answered together, at least; tasks are kept whole.
_WAVE = 2048
_PROVENANCE = ("template", "delimiter", "definition_prefix", "input_prefix", "demonstrations")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run of a suite left.

    Attributes:
      predictions: one for each request, in the order of tasks, shots and rows.
      failures: by task left out, what went wrong.
    """

    predictions: list[Prediction]
    failures: dict[str, str]


class Runner:
    """Answers the requests of a suite with one model."""

    def __init__(
        self,
        engine: Engine,
        store: ExampleStore,
        suite: Suite,
        seed: int,
        model_name: str,
        process: tuple[int, int] = (0, 1),
    ):
        """
        Args:
          seed: draws rows, delimiters and demonstrations.
          model_name: what predictions call the model.
          process: the number of this process and how many there are, all of which ask the same; the first one
            writes.
        """
        self._engine, self._store, self._suite = engine, store, suite
        self._seed, self._name, self._process = seed, model_name, process
        self._scorers = ranking.scorer_names(suite.scorers, suite.with_eos)
        if suite.primary_scorer not in self._scorers:
            raise InputError(
                f"{suite.primary_scorer!r} is not among the scorers",
                field="Suite.primary_scorer",
                remedy=f"It may be one of {', '.join(self._scorers)}",
            )

    def run(
        self,
        selected: Mapping[str, Selected],
        output_dir: str | os.PathLike[str],
        header: Mapping[str, Any],
        watch: Watch | None = None,
    ) -> Outcome:
        """Answers everything that the output folder does not hold yet.

        A task's predictions reach the file all together, so a run that was killed goes on with the tasks that
        it lacks. A task that fails is left out and named among the failures; a next run tries it again.

        Args:
          selected: the tasks, by name.
          output_dir: gets `header.json`, `results.jsonl` and `efficiency.jsonl`.
          header: what the predictions depend on; those of another header are replaced.
          watch: is told what is answered.
        """
        watch = watch or Watch()
        folder = ResultsFolder(output_dir, *self._process)
        done = folder.resume(header, {name: self._size(task) for name, task in selected.items()})
        ahead = {name: task for name, task in selected.items() if name not in done}
        work = estimate(self._store, ahead, self._suite, self._seed)
        total = sum(map(self._size, selected.values()))
        watch.begin(_sum(work.values()), total, total - sum(map(self._size, ahead.values())))
        # Whatever one task's data, metrics or answers do must not end the others: hence the broad excepts.
        failures: dict[str, str] = {}
        for wave in self._waves(list(ahead.values()), failures):
            watch.correct(_sum(work[name] for name in wave), _sum(map(self._work, wave.values())))
            for name, answers in self._answer_wave(wave, failures, watch, folder).items():
                try:
                    predictions = self._describe(selected[name], wave[name], answers)
                except Exception as error:
                    failures[name] = _told(error)
                    continue
                folder.append(predictions)
                done[name] = predictions
        return Outcome([line for name in selected if name in done for line in done[name]], failures)

    def _waves(
        self, tasks: Sequence[Selected], failures: dict[str, str]
    ) -> Iterator[dict[str, list[Request]]]:
        """Whole tasks' requests, enough of them for full batches."""
        wave: dict[str, list[Request]] = {}
        for task in tasks:
            try:
                wave[task.task] = make_requests(self._store, task, self._suite, self._seed)
            except Exception as error:
                failures[task.task] = _told(error)
            if sum(map(len, wave.values())) >= _WAVE:
                yield wave
                wave = {}
        if wave:
            yield wave

    def _answer_wave(
        self, wave: Mapping[str, list[Request]], failures: dict[str, str], watch: Watch, folder: ResultsFolder
    ) -> dict[str, list[Prediction]]:
        before = watch.done
        try:
            answers, spent = self._answer(
                [request for requests in wave.values() for request in requests], watch
            )
        except Exception as error:
            watch.done = before
            if len(wave) > 1:
                # Together they fail: one by one shows whose fault it is.
                parts = [self._answer_wave({name: wave[name]}, failures, watch, folder) for name in wave]
                return {name: lines for part in parts for name, lines in part.items()}
            failures[next(iter(wave))] = _told(error)
            return {}
        folder.append_efficiency(spent)
        rest = iter(answers)
        return {name: [next(rest) for _ in requests] for name, requests in wave.items()}

    def _answer(
        self, requests: Sequence[Request], watch: Watch
    ) -> tuple[list[Prediction], list[dict[str, Any]]]:
        """What the model says to each request (prediction, scores, picks, flags), and what that took."""
        answers: list[Prediction] = [{}] * len(requests)
        spent = []
        for kind, answer in (("rank", self._rank), ("generate", self._generate)):
            places = [i for i, request in enumerate(requests) if request.kind == kind]
            if not places:
                continue
            asked = [requests[i] for i in places]
            share = self._work(asked)[kind] / len(asked)
            watch.start()
            began = time.monotonic()
            found, written = answer(
                asked, lambda n, kind=kind, share=share: watch.answered(kind, n * share, n)
            )
            for i, line in zip(places, found, strict=True):
                answers[i] = line
            read = sum(len(request.prompt.source) for request in asked)
            spent.append(
                {
                    "kind": kind,
                    "seconds": time.monotonic() - began,
                    "requests": len(asked),
                    "characters": read,
                    **written,
                }
            )
        return answers, spent

    def _rank(
        self, requests: Sequence[Request], progress: Progress
    ) -> tuple[list[Prediction], dict[str, int]]:
        primary = self._suite.primary_scorer
        rankings = ranking.rank(self._engine, requests, self._scorers, primary, progress)
        lines = [
            {
                "prediction": request.candidates[found.picks[primary]],
                "scores": found.scores,
                "picks": found.picks,
                "truncated": found.truncated,
                "flags": found.flags,
            }
            for request, found in zip(requests, rankings, strict=True)
        ]
        return lines, {"candidates": sum(len(request.candidates) for request in requests)}

    def _generate(
        self, requests: Sequence[Request], progress: Progress
    ) -> tuple[list[Prediction], dict[str, int]]:
        prompts = [request.prompt for request in requests]
        texts = self._engine.generate(
            [prompt.source for prompt in prompts],
            self._suite.decoding,
            [prompt.parts for prompt in prompts],
            progress,
        )
        lines = [
            {
                "prediction": answer.text,
                "scores": {},
                "picks": {},
                "truncated": answer.truncated,
                "flags": [] if answer.finished else ["unfinished"],
            }
            for answer in texts
        ]
        return lines, {"tokens": sum(len(answer.tokens) for answer in texts)}

    def _work(self, requests: Sequence[Request]) -> dict[str, float]:
        work: dict[str, float] = defaultdict(float)
        for request in requests:
            work[request.kind] += weight(request, self._suite)
        return work

    def _describe(
        self, selected: Selected, requests: Sequence[Request], answers: Sequence[Prediction]
    ) -> list[Prediction]:
        """Prediction lines of one task, each with its metrics."""
        card = self._suite.scored(self._store.tasks[selected.task].card)
        answered = [
            metrics.Answer(
                answer["prediction"],
                request.references,
                request.candidates,
                answer["scores"].get(self._suite.primary_scorer, ()),
                request.uid,
                request.metric_data,
                self._suite.databases,
            )
            for request, answer in zip(requests, answers, strict=True)
        ]
        values, uncomputed = metrics.measure(card.metrics, answered)
        return [
            {
                "task": request.task,
                "benchmark": card.benchmark,
                "category": card.category,
                "level": selected.level,
                "split": request.split,
                "shots": request.shots,
                "uid": request.uid,
                "row": request.row,
                **{name: request.prompt.provenance[name] for name in _PROVENANCE},
                "kind": request.kind,
                "prompt": request.prompt.source,
                "references": list(request.references),
                "candidates": list(request.candidates),
                **answer,
                "metrics": {name: scores[i] for name, scores in values.items()},
                **({"uncomputed": uncomputed} if uncomputed else {}),
                "seed": self._seed,
                "model": self._name,
            }
            for i, (request, answer) in enumerate(zip(requests, answers, strict=True))
        ]

    def _size(self, task: Selected) -> int:
        return len(task.rows) * len(self._suite.shots)


def _sum(works: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for work in works:
        for kind, amount in work.items():
            total[kind] += amount
    return total


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    text = lines[0][:300] if lines else ""
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
