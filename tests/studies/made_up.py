"""Results that nobody computed: a study of two settings and two seeds whose answers are drawn."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from iml.bench.card import TaskCard
from iml.evaluation.scores.aggregation import aggregate
from iml.studies import work
from iml.studies.answers import SCORES
from iml.studies.design import Base, Design, Factor
from iml.studies.runs import Evaluation, Plan, Row, Run

#: By task: level, category and how many examples.
TASKS = {
    "a.one": ("supervised", "Summarization", 30),
    "a.two": ("supervised", "Summarization", 50),
    "b.three": ("supervised", "Question_Answering & more", 40),
    "b.four": ("fully_held_out", "Textual Entailment", 60),
}
SHOTS = (0, 5)
SEEDS = (1, 2)
SETTINGS = ("10 %", "50 %", "100 %")
SUITE = Evaluation("asked", "suite", (), ())


def draw_answers() -> dict[str, list[dict[str, dict[int, np.ndarray]]]]:
    """By setting and seed, by task and shots: whether each answer is right."""
    random = np.random.default_rng(3)
    chances = dict(zip(SETTINGS, (0.3, 0.5, 0.62), strict=True))
    return {
        setting: [
            {
                task: {
                    shots: random.random(rows) < chance + 0.1 * (shots > 0) + 0.08 * number for shots in SHOTS
                }
                for task, (_, _, rows) in TASKS.items()
            }
            for number in range(len(SEEDS))
        ]
        for setting, chance in chances.items()
    }


def make_plan(folder: pathlib.Path, seeds: tuple[int, ...] = SEEDS) -> Plan:
    """A study whose runs are called by setting and seed."""
    base = Base("made up", "store", (), ())
    values = {name: f"SHARE = {number}" for number, name in enumerate(SETTINGS)}
    design = Design("made_up", "Shares", base, (Factor("share", values),), seeds, untuned=False)
    runs = tuple(
        Run(_run(number, seed), f"{setting}, seed {seed}", (), (), 10, 1000, 1e6, "shape", None, (SUITE,))
        for seed in seeds
        for number, setting in enumerate(SETTINGS)
    )
    rows = tuple(
        Row(setting, {"share": setting}, tuple(_run(number, seed) for seed in seeds), {"suite": "asked"})
        for number, setting in enumerate(SETTINGS)
    )
    return Plan(design, folder, rows, runs)


def write_results(plan: Plan, answers, settings=SETTINGS, tasks=tuple(TASKS)) -> None:
    """The results of all runs of some settings, on some of the tasks."""
    for setting in settings:
        for seed, by_task in zip(plan.design.seeds, answers[setting], strict=False):
            name = _run(SETTINGS.index(setting), seed)
            write_answers(work.results_folder(plan.directory, name, SUITE.name), by_task, tasks)
            work.write_json(plan.directory / "runs" / name / work.TRAINED, {})


def write_answers(folder: pathlib.Path, by_task, tasks=tuple(TASKS)) -> None:
    """The results of one evaluation."""
    lines = [
        _line(task, shots, row, right)
        for task in tasks
        for shots, found in by_task[task].items()
        for row, right in enumerate(found)
    ]
    cards = {
        task: TaskCard(name=task, benchmark=task[0], category=TASKS[task][1], metrics=("exact_match",))
        for task in tasks
    }
    scores = aggregate(lines, cards, {task: TASKS[task][0] for task in tasks}, resamples=50)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    work.write_json(folder / SCORES, scores)


def _run(number: int, seed: int) -> str:
    return f"run{number}seed{seed}"


def _line(task: str, shots: int, row: int, right: bool) -> dict:
    level, category, _ = TASKS[task]
    return {
        "task": task, "benchmark": task[0], "category": category, "level": level, "split": "test",
        "shots": shots, "uid": str(row), "row": row, "template": "", "kind": "generate",
        "prompt": f"{task} {row} {shots}", "references": ["yes"], "candidates": [], "scores": {}, "picks": {},
        "prediction": "yes" if right else "no", "metrics": {"exact_match": 100.0 * right}, "flags": [],
        "truncated": False,
    }  # fmt: skip
