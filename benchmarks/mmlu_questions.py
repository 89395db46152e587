"""MMLU's questions for the benchmarks: their prompts, or random ones like them, and what it takes to rank them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Seed of what is drawn.
SEED = 1234

Question = tuple[str, tuple[str, ...]]
#: A prompt's tokens, and those of each candidate, </s> last.
Encoded = tuple[list[int], list[list[int]]]


@dataclasses.dataclass
class Counted:
    """What a side computes without padding: positions, logits, and pairs of a query and a key that it sees."""

    positions: int = 0
    logits: int = 0
    pairs: int = 0

    def read(self, start: int, end: int) -> None:
        """Tokens of one document, each of which sees itself and all before it."""
        self.positions += end - start
        self.pairs += (end * (end + 1) - start * (start + 1)) // 2


def stored(path: str, step: int, most: int | None, shots: int) -> list[Question]:
    """Of every so many subjects at most so many questions, as gin_configs/evals/mmlu.gin asks them."""
    from iml.data.prompts import PromptFormat
    from iml.data.store import ExampleStore
    from iml.evaluation import requests
    from iml.evaluation.suites import Suite

    store = ExampleStore(path)
    written = PromptFormat(
        separator="\n\n", delimiters=("",), definition_prefixes=("",), input_prefixes=("",)
    )
    suite = Suite(
        "MMLU", ("mmlu.*",), split="test", shots=(shots,), max_prompts_per_task=most, format=written
    )
    chosen = list(requests.select(store, suite, SEED).values())[::step]
    asked = [request for task in chosen for request in requests.make_requests(store, task, suite, SEED)]
    return [(request.prompt.source, request.candidates) for request in asked]


def drawn(vocabulary: Any, step: int, most: int | None, shots: int) -> list[Question]:
    """The like in random words: 57 subjects of 100 questions."""
    text = vocabulary.files[0].read_text(encoding="utf-8")
    words = sorted(token[1:] for token in json.loads(text) if token[:1] == "Ġ" and token[1:].isalpha())
    words = np.array(words)
    random, found = np.random.default_rng(SEED), []
    for _ in range(0, 57, step):
        shown = [" ".join(random.choice(words, 70)) + "\nAnswer: A\n\n" for _ in range(shots)]
        for _ in range(most or 100):
            question = " ".join(random.choice(words, int(random.integers(40, 100))))
            found.append(("".join(shown) + question + "\nAnswer:", tuple("ABCD")))
    return found


def encode(vocabulary: Any, questions: Sequence[Question], length: int, answer: int = 0) -> list[Encoded]:
    """The tokens that iml reads, without BOS.

    Args:
      length: positions of the model; a prompt loses its head where it leaves no room for what follows.
      answer: tokens that are to be generated; 0 if candidates are ranked.
    """
    ids = iter(
        vocabulary.encode_batch(
            [text for source, texts in questions for text in (source, *(f" {each}" for each in texts))]
        )
    )
    found = []
    for _, texts in questions:
        prompt, tails = next(ids), [[*next(ids), vocabulary.EOS] for _ in texts]
        room = length - answer if answer else length + 1 - max(map(len, tails))
        found.append((prompt[-room:], tails))
    return found


def count(side: str, questions: Sequence[Encoded], answers: Sequence[Sequence[Any]]) -> Counted:
    """What transformers computes.

    Args:
      side: "rows" for each candidate with its whole prompt, "once" for each prompt once, "static" for answers.
      answers: the tokens that were generated, </s> included.
    """
    counted = Counted()
    for (prompt, tails), answer in zip(questions, answers, strict=True):
        if side == "static":
            counted.read(0, len(prompt) + len(answer) - 1)
            counted.logits += len(answer)
            continue
        if side == "once":
            counted.read(0, len(prompt))
        for tail in tails:
            counted.read(len(prompt) if side == "once" else 0, len(prompt) + len(tail) - 1)
        counted.logits += sum(map(len, tails)) - (len(tails) - 1 if side == "once" else 0)
    return counted


def count_shared(scorer: Any, questions: Sequence[Question]) -> Counted:
    """What iml computes in ranking, where what prompts begin with in common is read once."""
    from iml.evaluation.engines import trees

    rows = [row for i, tails in enumerate(scorer._encode(questions)) for row in scorer._rows(i, tails)]
    counted = Counted(logits=sum(row.places for row in rows))
    for group in trees.group_by_prefix([row.context[:-1] for row in rows]):
        counted.read(0, group.shared)
        for row in (rows[i] for i in group.members):
            counted.read(group.shared, len(row.context))
            for tail in row.tails:
                counted.read(len(row.context), len(tail.ids) - 1)
    return counted
