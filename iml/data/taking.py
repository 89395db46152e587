"""How much of a task is prepared: the bench's caps, and one prompt for each training example if wanted.

The choice is a function of the seed and of uids, so it is the same in any order and process, a larger cap takes
a superset, and all renderings of an example stay or go together. It costs further passes over the source, and
memory for one hash of each example that is taken, never the examples themselves.
"""

from __future__ import annotations

import dataclasses
import difflib
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from iml.bench.card import BENCHMARKS, Example
from iml.bench.contamination_decisions import Without
from iml.bench.levels import EVALUATION_ONLY
from iml.bench.mixing import EXTRA_SOURCES
from iml.data.random import hash64
from iml.errors import InputError

#: OPT-IML's caps on a task's training examples (paper, Table 1): "*" is for benchmarks that are not named.
MAX_EXAMPLES = {"*": 100_000, "flan": 30_000}
TRAIN_PROMPTS = ("all", "pooled")
#: Examples that are held while it is not known whether there are more.
_HELD = 8192


@dataclasses.dataclass(frozen=True, slots=True)
class Take:
    """What of a task is prepared.

    Attributes:
      max_examples: underlying examples of the train split, at most; None for all.
      train_prompts: "all" keeps every rendering of a training example, from which a run draws as many as there
        are examples; "pooled" stores just so many, drawn once from the pool of all (paper, section 2.3).
      seed: seed of the choice.
      without: what contamination decisions leave out.
    """

    max_examples: int | None = None
    train_prompts: str = "all"
    seed: int = 1234
    without: Without = Without()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        if self.max_examples is not None and self.max_examples < 1:
            raise InputError(f"must be at least 1, not {self.max_examples}", field="prepare.max_examples")
        if self.train_prompts not in TRAIN_PROMPTS:
            raise InputError(
                f"there is no choice {self.train_prompts!r}",
                field="prepare.train_prompts",
                remedy=f"One of {', '.join(TRAIN_PROMPTS)}",
            )

    def to_json(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"without": self.without.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, "without": Without.from_json(record["without"])})


def caps_by_benchmark(
    caps: Mapping[str, int] | int | None, benchmarks: Iterable[str]
) -> Callable[[str], int | None]:
    """A function from a benchmark's name to its cap.

    Args:
      caps: one for all, or by benchmark with "*" for those not named; None for none.
      benchmarks: the user's own, beside the bench's.

    Raises:
      InputError: a cap is for a benchmark that nobody knows.
    """
    if caps is None or isinstance(caps, int):
        return lambda benchmark: caps
    known = sorted({*BENCHMARKS, *EVALUATION_ONLY, *EXTRA_SOURCES, *benchmarks, "*"})
    for name in caps:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"unknown benchmark {name!r}",
                field="prepare.max_examples",
                remedy=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}",
            )
    return lambda benchmark: caps.get(benchmark, caps.get("*"))


def take_split(
    read: Callable[[], Iterable[Example]], task: str, split: str, take: Take
) -> tuple[Iterator[Example], int | None]:
    """The examples of a split that are prepared, in their order.

    Args:
      read: reads the split from its start, the same each time.

    Returns:
      The examples, and how many underlying ones they stand for where uids do not tell: of a pool. An
      evaluation split is left as it is, or left out.
    """
    if split != "train":
        return iter(() if take.without.evaluation else read()), None
    dropped = take.without.train_uids
    train = (lambda: (example for example in read() if example.uid not in dropped)) if dropped else read
    if take.max_examples is None and take.train_prompts == "all":
        return iter(train()), None
    beginning, rest = _hold(train())
    if rest is None:
        train = beginning.__iter__
        whole: Iterable[Example] = beginning
    else:
        whole = itertools.chain(beginning, rest)
    size, bound = _smallest((_uid_hash(task, example, take.seed) for example in whole), take.max_examples)

    def kept() -> Iterator[Example]:
        return (example for example in train() if _uid_hash(task, example, take.seed) <= bound)

    if take.train_prompts == "all":
        return kept(), None
    _, row_bound = _smallest((_row_hash(task, example, take.seed) for example in kept()), size)
    return (example for example in kept() if _row_hash(task, example, take.seed) <= row_bound), size


def _hold(examples: Iterable[Example]) -> tuple[list[Example], Iterator[Example] | None]:
    """The first examples, and an iterator over the others; None if there are none."""
    rest = iter(examples)
    beginning = list(itertools.islice(rest, _HELD))
    return beginning, rest if len(beginning) == _HELD else None


def _smallest(hashes: Iterable[int], most: int | None) -> tuple[int, int]:
    """How many distinct hashes there are, `most` at most, and the largest of that many smallest."""
    heap: list[int] = []
    held: set[int] = set()
    for value in hashes:
        if value in held:
            continue
        if most is None or len(heap) < most:
            heapq.heappush(heap, -value)
            held.add(value)
        elif value < -heap[0]:
            held.remove(-heapq.heappushpop(heap, -value))
            held.add(value)
    return len(heap), -heap[0] if heap else -1


def _uid_hash(task: str, example: Example, seed: int) -> int:
    return hash64(seed, task, example.uid)


def _row_hash(task: str, example: Example, seed: int) -> int:
    return hash64(seed, task, example.uid, example.template)
