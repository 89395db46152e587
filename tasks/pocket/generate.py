"""Writes the embedded benchmark: `python -m tasks.pocket.generate [--check] [--output DIR]`.

Everything under `data/` and `vocabulary/` comes from here, byte for byte the same from the same seed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.pocket import (
    recipes_flan,
    recipes_keywords,
    recipes_promptsource,
    recipes_structured,
    recipes_super_ni,
    recipes_text,
)
from tasks.pocket.formats import WRITERS
from tasks.pocket.recipe import Recipe, draw

SEED = 1234
#: Entries of the vocabulary: 4 special ones, the 256 bytes, and merges. Fewer if the text runs out of pairs.
VOCABULARY_SIZE = 1280
HOME = Path(__file__).parent

RECIPES: tuple[Recipe, ...] = (
    *recipes_super_ni.RECIPES,
    *recipes_promptsource.RECIPES,
    *recipes_flan.RECIPES,
    *recipes_keywords.RECIPES,
    *recipes_structured.RECIPES,
    *recipes_text.RECIPES,
)
_LEVELS = {
    "super_natural_instructions": "task",
    "reasoning": "task",
    "promptsource": "instance",
    "flan": "instance",
    "pretraining": "instance",
    "dialogue": "instance",
}
#: Text that prompts add to the tasks' own.
_PROMPT_TEXT = (
    "Instructions: Task: Input: Answer: A: Output: answer: output:\n"
    " Answer: A: Output: answer: output:\nAnswer:\nA:\nOutput:\nanswer:\noutput:\n\n\n"
)


def card(recipe: Recipe) -> dict[str, Any]:
    """The recipe's task card as JSON."""
    return {
        "name": f"{recipe.benchmark}.{recipe.task}",
        "benchmark": recipe.benchmark,
        "category": recipe.category,
        "instruction_level": _LEVELS.get(recipe.benchmark, "keywords"),
        "source": recipe.task,
        "metrics": list(recipe.metrics),
        "licence": "CC0-1.0",
        "languages": ["Spanish" if recipe.format == "wmt" else "English"],
    }


def benchmark_files(seed: int = SEED) -> dict[str, str]:
    """The text of every data file by its path under `data/`, the catalogue among them."""
    files: dict[str, str] = {}
    entries = []
    for recipe in RECIPES:
        train, validation = draw(recipe, seed)
        splits = {"train": train} | ({"validation": validation} if validation else {})
        written, entry = WRITERS[recipe.format](recipe, splits)
        clash = files.keys() & written.keys()
        if clash:
            raise ValueError(f"two tasks write {sorted(clash)[0]}")
        files.update(written)
        entries.append({"card": card(recipe), "format": recipe.format, **entry})
    rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    files["catalogue.json"] = f"[\n{rows}\n]\n"
    return files


def vocabulary_files(texts: Iterable[str], size: int = VOCABULARY_SIZE) -> dict[str, str]:
    """A byte-level BPE trained on `texts`, as gpt2-vocab.json and gpt2-merges.txt, OPT's four ids first."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts, vocab_size=size, min_frequency=2, show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_model(folder)
        entries = json.loads((Path(folder) / "vocab.json").read_text("utf-8"))
        merges = (Path(folder) / "merges.txt").read_text("utf-8")
    ordered = dict(sorted(entries.items(), key=lambda entry: entry[1]))
    return {
        "gpt2-vocab.json": json.dumps(ordered, ensure_ascii=False, indent=0) + "\n",
        "gpt2-merges.txt": merges,
    }


def _family_text(recipe: Recipe, records: list[Any]) -> list[str]:
    """About what prompts say of a task whose reader belongs to its family: for the vocabulary only."""
    if recipe.format == "super_ni":
        return [
            f"{recipe.options['definition']}\nInput: {source}\n {' '.join(out)}\n" for source, out in records
        ]
    templates = " \n".join(
        re.sub(r"{[{%].*?[%}]}", " ", jinja) for _, jinja, _, _ in recipe.options["templates"]
    )
    choices = " ".join(choice or "" for _, _, choice, _ in recipe.options["templates"])
    return [f"{templates} {choices} " + " ".join(str(value) for value in row.values()) for row in records]


def all_files(seed: int = SEED) -> dict[str, str]:
    """Every generated file by its path under this package; the vocabulary is made of the tasks' text alone."""
    from tasks.pocket.readers import READERS, examples

    files = {f"data/{path}": text for path, text in benchmark_files(seed).items()}
    with tempfile.TemporaryDirectory() as folder:
        write(files, Path(folder))
        texts = [_PROMPT_TEXT * 50]
        entries = json.loads(files["data/catalogue.json"])
        for recipe, entry in zip(RECIPES, entries, strict=True):
            if entry["format"] in READERS:
                for example in examples(Path(folder) / "data", entry, "train"):
                    texts.append(f"{example.instruction}\n{example.source}\nanswer: {example.target}\n")
            elif recipe.format in ("super_ni", "promptsource"):
                texts += _family_text(recipe, draw(recipe, seed)[0])
    vocabulary = vocabulary_files(texts)
    return files | {f"vocabulary/{name}": text for name, text in vocabulary.items()}


def write(files: dict[str, str], home: Path) -> None:
    """Writes the files under `home`."""
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))


def differences(files: dict[str, str], home: Path) -> list[str]:
    """The paths under `home` that are missing, differ, or should not be there."""
    there = {
        os.fspath(path.relative_to(home)): path
        for part in ("data", "vocabulary")
        for path in sorted((home / part).rglob("*"))
        if path.is_file()
    }
    wrong = [
        name
        for name, text in files.items()
        if name not in there or there[name].read_bytes() != text.encode("utf-8")
    ]
    return wrong + [name for name in there if name not in files]


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.pocket.generate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    parser.add_argument("--output", type=Path, default=HOME, help="folder that gets data/ and vocabulary/")
    parser.add_argument("--seed", type=int, default=SEED)
    flags = parser.parse_args(arguments)
    files = all_files(flags.seed)
    if flags.check:
        wrong = differences(files, flags.output)
        if wrong:
            sys.stderr.write(f"not as generated: {', '.join(wrong[:10])}\n")
        return 1 if wrong else 0
    for name in differences(files, flags.output):
        if name not in files:
            (flags.output / name).unlink()
    write(files, flags.output)
    size = sum(len(text.encode("utf-8")) for text in files.values())
    sys.stdout.write(f"{len(RECIPES)} tasks, {len(files)} files, {size / 2**20:.2f} MiB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
