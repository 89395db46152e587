"""The card of a tuned model: what it was tuned on, how it scored, what it may have seen, whose data it was.

A Markdown file with the metadata that Hugging Face's hub reads from a model's `README.md`. It tells what the
run's folder, the results of evaluations and a contamination report hold, and nothing else.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iml.bench.levels import LEVELS
from iml.errors import InputError
from iml.evaluation.reports.report import SCORES, name_results, read_scores
from iml.evaluation.scores.aggregation import AVERAGE
from iml.markup import markdown
from iml.models.config import OPTConfig

NAME = "README.md"
_UNKNOWN = "not stated"
#: What the hub takes for the name of a data set.
_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
      name: of the model.
      config: its shape.
      step: the training step that its parameters are of; None where it is no run's.
      plan: the run's `plan.json`, {} where there is none.
      settings: the run's `config.gin`.
      results: `scores.json` of evaluations, by title.
      model_hash: what evaluations of these very parameters have in their header.
      contamination: what `iml.contaminate` wrote, or None.
      decisions: how many of the pairs that it lists were decided in each way.
    """

    name: str
    config: OPTConfig
    step: int | None = None
    plan: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: str = ""
    results: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    model_hash: str = ""
    contamination: Mapping[str, Any] | None = None
    decisions: Mapping[str, int] = dataclasses.field(default_factory=dict)


def gather(
    name: str,
    config: OPTConfig,
    run_dir: str | os.PathLike[str] | None,
    step: int | None,
    evaluations: Sequence[str] | None = None,
    contamination: str | os.PathLike[str] | None = None,
) -> Facts:
    """Reads what a card tells.

    Args:
      run_dir: the run's folder, if the model has one.
      evaluations: folders of results; None for those within the run's folder, but not of its other steps.
      contamination: the folder that `iml.contaminate` wrote.

    Raises:
      InputError: a file that was named is missing or damaged.
    """
    run = None if run_dir is None else pathlib.Path(run_dir)
    if evaluations is None:
        found = sorted(run.glob(f"**/{SCORES}")) if run else []
        folders = [path.parent for path in found]
        # Those of other steps, on the way, say nothing of this model.
        evaluations = [os.fspath(f) for f in folders if not f.name.isdigit() or int(f.name) == step]
    results = dict(zip(name_results(evaluations), map(read_scores, evaluations), strict=True))
    plan = _read_json(run / "plan.json") if run and (run / "plan.json").exists() else {}
    settings = (
        (run / "config.gin").read_text(encoding="utf-8") if run and (run / "config.gin").exists() else ""
    )
    overlaps, decisions = None, collections.Counter[str]()
    if contamination is not None:
        folder = pathlib.Path(contamination)
        overlaps = _read_json(folder / "contamination.json")
        for number, line in enumerate(_lines(folder / "decisions.jsonl"), start=1):
            try:
                decisions[json.loads(line)["decision"]] += 1
            except (ValueError, KeyError, TypeError) as error:
                path = folder / "decisions.jsonl"
                raise InputError(f"not a decision ({error})", path=path, line=number) from error
    return Facts(
        name,
        config,
        step,
        plan,
        settings,
        results,
        contamination=overlaps,
        decisions=decisions,
    )


def write(folder: str | os.PathLike[str], facts: Facts) -> pathlib.Path:
    """Writes the card into a model's folder; gives its path."""
    path = pathlib.Path(folder) / NAME
    temporary = path.with_name(f".{NAME}")
    temporary.write_text(render(facts), encoding="utf-8")
    temporary.replace(path)
    return path


def render(facts: Facts) -> str:
    """The card's text."""
    parts = [
        f"---\n{_metadata(facts)}---",
        f"# {markdown(facts.name)}",
        _introduction(facts),
        _tuning(facts),
        _scores(facts),
        _contamination(facts),
        _licences(facts),
        _use(),
        _settings(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: Facts) -> str:
    """The hub's YAML, written as JSON, of which YAML is a superset."""
    cards = facts.plan.get("cards", {}).values()
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "tags": ["opt", "instruction-tuning", "iml"],
    }
    # A source may say in brackets how its splits came about, which is no part of a data set's name.
    sources = {card["source"].partition(" (")[0] for card in cards}
    if named := sorted(filter(_DATASET.fullmatch, sources)):
        fields["datasets"] = named
    metrics = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"{title}, {level.replace('_', ' ')}", "type": level},
            "metrics": [
                {"type": "score", "name": f"{shots}-shot", "value": round(cell["mean"], 2)}
                for shots, cell in cells.items()
                if shots != AVERAGE and cell["mean"] is not None
            ],
        }
        for title, scores in facts.results.items()
        if _is_of(facts, scores["header"])
        for level, cells in scores["levels"].items()
    ]
    if metrics := [result for result in metrics if result["metrics"]]:
        fields["model-index"] = [{"name": facts.name, "results": metrics}]
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())


def _introduction(facts: Facts) -> str:
    config = facts.config
    shape = (
        f"An OPT decoder of {config.num_parameters():,} parameters ({config.num_layers} layers of width "
        f"{config.embed_dim}, {config.num_heads} heads, {config.max_positions:,} positions)"
    )
    if facts.step is None:
        return f"{shape}."
    return f"{shape}, instruction-tuned for {facts.step:,} updates after OPT-IML (arXiv 2212.12017)."


def _tuning(facts: Facts) -> str:
    plan = facts.plan
    if not plan:
        return ""
    rows = [
        (name, f"{entry['tasks']:,}", f"{entry['draws']:,}", f"{entry['share']:.2%}")
        for name, entry in plan["benchmarks"].items()
    ]
    saw = f"{len(plan['counts']):,} tasks, {plan['epoch_size']:,} examples in an epoch"
    start = f", begun from {_code(plan['init_from'])}" if plan.get("init_from") else ""
    lines = [
        "## What it was tuned on",
        f"{saw}{start}. {len(plan['left_out']):,} tasks of the store were not trained on: they are held out, "
        "have no training examples, or the mixture leaves them out.",
        _table(("benchmark", "tasks", "examples in an epoch", "share"), rows),
    ]
    return "\n\n".join(lines)


def _scores(facts: Facts) -> str:
    parts = []
    for title, scores in facts.results.items():
        columns = [*map(str, scores["shots"]), AVERAGE]
        rows = [
            (level.replace("_", " "), *(_cell(scores["levels"][level].get(column)) for column in columns))
            for level in LEVELS
            if level in scores["levels"]
        ]
        head = ("level", *(f"{column}-shot" if column != AVERAGE else column for column in columns))
        tasks, failed = len(scores["tasks"]), len(scores["failures"])
        suite = scores["header"]["suite"]
        told = "" if _is_of(facts, scores["header"]) else "Other parameters, to compare with: "
        told += f"{tasks:,} tasks of suite {_code(suite['name'])}, split {suite['split']}"
        told += f"; {failed:,} could not be evaluated" if failed else ""
        parts.append(f"### {markdown(title)}\n\n{told}.\n\n{_table(head, rows)}")
    if not parts:
        return ""
    lead = (
        "Mean scores of 0 to 100 with 95 % bootstrap intervals. Fully held-out: no task of the category was "
        "trained on; partially held-out: other tasks of it were; supervised: the task itself was."
    )
    return "\n\n".join(["## Scores", lead, *parts])


def _is_of(facts: Facts, header: Mapping[str, Any]) -> bool:
    """Whether results are of these very parameters; those behind an endpoint are not known to be."""
    return header.get("model_hash") == facts.model_hash


def _contamination(facts: Facts) -> str:
    found = facts.contamination
    if found is None:
        return ""
    settings, listed = found["settings"], found["listed"]
    pairs = collections.Counter(pair["level"] for pair in listed)
    lead = (
        f"{found['training']['tasks']:,} training tasks were compared with {found['evaluation']['tasks']:,} "
        f"evaluation tasks. {len(listed):,} pairs have a {settings['ngram']}-gram in common in more than "
        f"{settings['threshold']:.0%} of the evaluation examples."
    )
    rows = [(level.replace("_", " "), f"{pairs[level]:,}") for level in LEVELS if pairs[level]]
    decided = ", ".join(f"{count:,} {_code(name)}" for name, count in sorted(facts.decisions.items()))
    parts = ["## Contamination", lead]
    if rows:
        parts.append(_table(("level of the evaluation task", "pairs"), rows))
    return "\n\n".join([*parts, *([f"Decisions: {decided}."] if decided else [])])


def _licences(facts: Facts) -> str:
    groups: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for card in facts.plan.get("cards", {}).values():
        groups[card["licence"] or _UNKNOWN].append(card)
    if not groups:
        return ""
    rows = [
        (markdown(licence), f"{len(cards):,}", markdown(_some({card["source"] for card in cards})))
        for licence, cards in sorted(groups.items(), key=lambda item: (item[0] == _UNKNOWN, item[0]))
    ]
    lead = (
        "Of the data it was tuned on, as the tasks' cards state them. OPT's weights have Meta's OPT licence."
    )
    return "\n\n".join(["## Licences", lead, _table(("licence", "tasks", "sources"), rows)])


def _use() -> str:
    return (
        "## Prompts\n\nAn instruction and an input, then one of the delimiters it was tuned with, such as "
        "`\\nAnswer:`; the answer follows after one space and ends with `</s>`. Documents had no token in front "
        "of them in tuning; Hugging Face's tokenizer puts `</s>` there unless told not to "
        "(`add_special_tokens=False`)."
    )


def _settings(facts: Facts) -> str:
    if not facts.settings:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.plan.get("versions", {}).items())
    told = f"Stream {_code(facts.plan['fingerprint'])}; {versions}.\n\n" if facts.plan else ""
    return (
        f"## Settings\n\n{told}<details><summary>gin</summary>\n\n"
        f"~~~~gin\n{facts.settings.strip()}\n~~~~\n\n</details>"
    )


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    interval = "" if cell.get("low") is None else f" [{cell['low']:.1f}, {cell['high']:.1f}]"
    return f"{cell['mean']:.1f}{interval}"


def _some(names: Iterable[str], most: int = 12) -> str:
    known = sorted(name for name in names if name)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path) from error


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
