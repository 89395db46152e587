"""From a suite to predictions: one queue of requests over all tasks and shots, saved as answers come."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from iml.data.store import ExampleStore
from iml.errors import InputError
from iml.evaluation import metrics, ranking
from iml.evaluation.engines.engine import Engine, Generated
from iml.evaluation.progress import Watch, estimate, weight
from iml.evaluation.requests import Request, Selected, make_requests
from iml.evaluation.results.results_folder import Key, Prediction, ResultsFolder
from iml.evaluation.suites import Suite

#: Requests that are answered together, at least; tasks are kept whole.
_WAVE = 2048
#: Called with the number of a request and its answer: prediction, scores, picks, flags.
_Keep = Callable[[int, Prediction], None]
_PROVENANCE = ("template", "delimiter", "definition_prefix", "input_prefix", "demonstrations")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run of a suite left.

    Attributes:
      predictions: one for each request, in the order of tasks, shots and rows; none in other processes than the
        first.
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

        A run that was killed goes on with the requests that it has no answer to. A task that fails is left out
        and named among the failures; a next run tries it again.

        Args:
          selected: the tasks, by name.
          output_dir: gets `header.json`, `results.jsonl`, `efficiency.jsonl`, and `answers.jsonl` until all is
            answered.
          header: what the predictions depend on; those of another header are replaced.
          watch: is told what is answered.
        """
        watch = watch or Watch()
        folder = ResultsFolder(output_dir, *self._process)
        asked = {
            name: [(shots, row) for shots in self._suite.shots for row in task.rows]
            for name, task in selected.items()
        }
        done = folder.resume(header, asked)
        ahead = {name: task for name, task in selected.items() if name not in done}
        work = estimate(self._store, ahead, self._suite, self._seed)
        total, left = (sum(len(asked[name]) for name in tasks) for tasks in (selected, ahead))
        watch.begin(_sum(work.values()), total, total - left + len(folder.answers))
        # Whatever one task's data, metrics or answers do must not end the others: hence the broad excepts.
        failures: dict[str, str] = {}
        try:
            for wave in self._waves(list(ahead.values()), failures):
                unanswered = [
                    request
                    for requests in wave.values()
                    for request in requests
                    if _key(request) not in folder.answers
                ]
                watch.correct(_sum(work[name] for name in wave), self._work(unanswered))
                for name in self._answer_wave(wave, failures, watch, folder):
                    if not folder.writes:
                        continue
                    answers = [folder.answers[_key(request)] for request in wave[name]]
                    try:
                        predictions = self._describe(selected[name], wave[name], answers)
                    except Exception as error:
                        failures[name] = _told(error)
                        continue
                    folder.append(name, predictions)
                    done[name] = predictions
        finally:
            folder.flush()
        if not failures:
            folder.finish()
        return Outcome([line for name in selected if name in done for line in done[name]], failures)

    def _waves(
        self, tasks: Sequence[Selected], failures: dict[str, str]
    ) -> Iterator[dict[str, list[Request]]]:
        """Whole tasks' requests, enough of them for full batches."""
        wave: dict[str, list[Request]] = {}
        for task in tasks:
            try:
                # Not only once all is answered.
                for metric in self._suite.scored(self._store.tasks[task.task].card).metrics:
                    metrics.find(metric)
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
    ) -> list[str]:
        """Sees to it that the folder has all answers of these tasks; gives the tasks of which it has."""
        try:
            self._answer([request for requests in wave.values() for request in requests], watch, folder)
        except Exception as error:
            if len(wave) > 1:
                # Together they fail: one by one shows whose fault it is.
                parts = [self._answer_wave({name: wave[name]}, failures, watch, folder) for name in wave]
                return [name for part in parts for name in part]
            failures[next(iter(wave))] = _told(error)
            return []
        return list(wave)

    def _answer(self, requests: Sequence[Request], watch: Watch, folder: ResultsFolder) -> None:
        """Has the model answer what the folder has no answer to, and notes what that took."""
        for kind, answer in (("rank", self._rank), ("generate", self._generate)):
            asked = [
                request
                for request in requests
                if request.kind == kind and _key(request) not in folder.answers
            ]
            if not asked:
                continue

            def keep(number: int, found: Prediction, asked: Sequence[Request] = asked) -> None:
                request = asked[number]
                folder.note(_key(request), found)
                watch.answered(request.kind, weight(request, self._suite), 1)

            watch.start()
            began = time.monotonic()
            written = answer(asked, keep)
            read = sum(len(request.prompt.source) for request in asked)
            seconds = time.monotonic() - began
            folder.append_efficiency(
                {"kind": kind, "seconds": seconds, "requests": len(asked), "characters": read, **written}
            )

    def _rank(self, requests: Sequence[Request], keep: _Keep) -> dict[str, int]:
        primary = self._suite.primary_scorer

        def tell(number: int, found: ranking.Ranking) -> None:
            answer = {
                "prediction": requests[number].candidates[found.picks[primary]],
                "scores": found.scores,
                "picks": found.picks,
                "truncated": found.truncated,
                "flags": found.flags,
            }
            keep(number, answer)

        ranking.rank(self._engine, requests, self._scorers, primary, tell)
        return {"candidates": sum(len(request.candidates) for request in requests)}

    def _generate(self, requests: Sequence[Request], keep: _Keep) -> dict[str, int]:
        prompts = [request.prompt for request in requests]

        def tell(number: int, found: Generated) -> None:
            answer = {
                "prediction": found.text,
                "scores": {},
                "picks": {},
                "truncated": found.truncated,
                "flags": [] if found.finished else ["unfinished"],
            }
            keep(number, answer)

        texts = self._engine.generate(
            [prompt.source for prompt in prompts],
            self._suite.decoding,
            [prompt.parts for prompt in prompts],
            tell,
        )
        return {"tokens": sum(len(answer.tokens) for answer in texts)}

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
        found = metrics.measure(card.metrics, answered)
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
                "metrics": {name: scores[i] for name, scores in found.values.items()},
                **(
                    {"statistics": {name: rows[i] for name, rows in found.statistics.items()}}
                    if found.statistics
                    else {}
                ),
                **({"uncomputed": found.missing} if found.missing else {}),
                "seed": self._seed,
                "model": self._name,
            }
            for i, (request, answer) in enumerate(zip(requests, answers, strict=True))
        ]


def _key(request: Request) -> Key:
    return request.task, request.shots, request.row


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
