"""What the model sees at a step, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from iml.data.batches import Placed
from iml.data.prompts import VARIED
from iml.data.stream import StreamState, TrainStream
from iml.errors import InputError

#: Data may hold terminal escapes; they are shown, not obeyed.
_CONTROL = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(
    range(0x7F, 0xA0), "\N{REPLACEMENT CHARACTER}"
)


def show_step(
    stream: TrainStream, step: int, lanes: Iterable[int] = (0,), state: StreamState | None = None
) -> Group:
    """The rows of some lanes at a step, each document with its origin, its source dim and its target bright.

    The lanes are packed from `state` on up to the step, some hundred rows a second.

    Args:
      step: number of steps before it.
      lanes: rows of the global batch.
      state: a state at or before that step, such as a checkpoint's; None for the beginning.

    Returns:
      A rich renderable.

    Raises:
      InputError: no such step or lane, or the state is past the step.
    """
    state = state or stream.initial_state()
    if step < state.step:
        raise InputError(
            f"step {step} lies before the given state, which is at step {state.step}", field="step"
        )
    parts = []
    for lane in lanes:
        if lane not in state.lanes:
            raise InputError(f"no lane {lane}; there are {stream.batch_size}", field="lanes")
        rows = stream.rows(state.lanes[lane])
        for _ in range(state.step, step):
            next(rows)
        parts.append(_row(stream, step, lane, next(rows)[0]))
    return Group(*parts)


def _row(stream: TrainStream, step: int, lane: int, row: Sequence[Placed]) -> Panel:
    used = sum(placed.document.positions for placed in row)
    learnt = sum(placed.document.targets for placed in row)
    title = f"step {step}, lane {lane}: {len(row)} documents, {used} of {stream.length} positions"
    parts = []
    for number, placed in enumerate(row, start=1):
        parts += [Rule(Text(f"segment {number}", "bold"), align="left"), *_document(stream, placed)]
    subtitle = f"fill {used / stream.length:.1%}, {learnt} target tokens"
    return Panel(Group(*parts), title=Text(title), subtitle=Text(subtitle))


def _document(stream: TrainStream, placed: Placed) -> list[Text]:
    document = placed.document
    prompt = document.prompt or stream.prompts([placed.number])[0][1]
    origin = prompt.provenance
    source = document.tokens[: document.target_start]
    target = document.tokens[document.target_start : -1]
    facts = {
        "task": origin["task"],
        "uid": origin["uid"],
        "template": origin["template"],
        "delimiter": repr(origin["delimiter"]),
        "shots": ", ".join(origin["demonstrations"]),
        **{name.replace("_", " "): repr(origin[name]) for name in VARIED if name in origin},
        "draw": placed.number,
        "tokens": f"{len(source)} + {len(target) + 1}",
        "cut from the left": document.truncated or "",
    }
    head = Text(
        "  ".join(f"{name} {_visible(str(fact))}" for name, fact in facts.items() if fact != ""), "cyan"
    )
    text = Text()
    text.append(_visible(stream.vocabulary.decode(source)), "dim")
    text.append(_visible(stream.vocabulary.decode(target)), "bold green")
    text.append("</s>", "bold magenta")
    return [head, text]


def _visible(text: str) -> str:
    return text.translate(_CONTROL)
