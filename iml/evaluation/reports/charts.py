"""Charts as SVG: bars with intervals, radar, reliability, curves. Each tells in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from iml.evaluation.reports.page import COLOURS, colour
from iml.evaluation.reports.tables import Row, Score
from iml.markup import Markup, tag

#: Fewest axes of a radar, and most that can be told apart.
RADAR_AXES = range(3, 25)


def bars(rows: Sequence[Row], columns: Sequence[str], titles: Sequence[str]) -> Markup:
    """Horizontal bars with intervals, for each row one for each column and result.

    The bars' lengths are per cents of a width that the page gives them, so text keeps its size.
    """
    scores = [score for row in rows for group in row.scores for score in group]
    top = _axis(max((score.high or score.mean or 0.0 for score in scores), default=0.0))
    parts: list[Markup] = []
    for row in rows:
        only = len(row.scores) * len(titles) == 1
        if not only:
            parts.append(tag("b", row.name))
        for column, group in zip(columns, row.scores, strict=True):
            for i, (title, score) in enumerate(zip(titles, group, strict=True)):
                label = " · ".join([column] * (len(columns) > 1) + [title] * (len(titles) > 1))
                parts.append(tag("span", row.name if only else label))
                parts.append(_bar(score, top, i, f"{row.name}, {column}, {title}: {score}"))
                parts.append(tag("span", "–" if score.mean is None else f"{score.mean:.1f}", class_="value"))
    parts.append(tag("span"))
    parts.append(_ticks(top))
    return tag("div", *parts, class_="bars")


def radar(rows: Sequence[Row], titles: Sequence[str]) -> Markup:
    """The last column of rows around a circle, each result a polygon; the axes are numbered below.

    A score that is missing interrupts nothing: the polygon passes by its axis.
    """
    size, radius = 320, 128
    middle, top = size / 2, _axis(max((s.mean or 0.0 for row in rows for s in row.scores[-1]), default=0.0))

    def at(number: int, value: float) -> tuple[float, float]:
        turn = 2 * math.pi * number / len(rows)
        return middle + value * math.sin(turn), middle - value * math.cos(turn)

    parts = [
        tag("circle", cx=f"{middle}", cy=f"{middle}", r=f"{radius * share / 4}", class_="grid")
        for share in (1, 2, 3, 4)
    ]
    for number in range(len(rows)):
        x, y = at(number, radius)
        parts.append(_segment(middle, middle, x, y, "grid"))
        x, y = at(number, radius + 14)
        parts.append(_text(str(number + 1), x, y + 4))
    for i in range(len(titles)):
        points = [
            at(number, radius * min(1.0, row.scores[-1][i].mean / top))
            for number, row in enumerate(rows)
            if row.scores[-1][i].mean is not None
        ]
        parts.append(tag("polygon", points=_points(points), class_=f"{colour(i)} s{i % COLOURS} trace"))
    parts += [
        _text(f"{top * share // 4}", middle + 4, middle - radius * share / 4 + 12, "start")
        for share in (2, 4)
    ]
    told = "; ".join(f"{row.name}: {', '.join(s.short for s in row.scores[-1])}" for row in rows)
    axes = (tag("li", row.name) for row in rows)
    picture = tag("svg", *parts, viewBox=f"0 0 {size} {size}", class_="plot", role="img", aria_label=told)
    return tag("div", tag("figure", picture, class_="radar"), tag("ol", *axes, class_="axes"), class_="side")


def reliability(found: Sequence[Mapping[str, Any] | None], titles: Sequence[str], caption: str) -> Markup:
    """Accuracy by confidence, of each result's `calibration.calibrate`; larger points are more answers."""
    left, bottom, side = 34, 206, 196

    def at(confidence: float, accuracy: float) -> tuple[float, float]:
        return left + side * confidence / 100, bottom - side * accuracy / 100

    parts = [tag("rect", x=str(left), y=str(bottom - side), width=str(side), height=str(side), class_="grid")]
    parts.append(_segment(*at(0, 0), *at(100, 100), "ideal"))
    for value in (0, 50, 100):
        parts.append(_text(str(value), at(value, 0)[0], bottom + 14))
        parts.append(_text(str(value), left - 5, at(0, value)[1] + 4, "end"))
    parts.append(_text("confidence", left + side / 2, bottom + 28))
    told = []
    for i, (title, cell) in enumerate(zip(titles, found, strict=True)):
        if cell is None:
            continue
        places = [at(row["confidence"], row["accuracy"]) for row in cell["bins"]]
        parts.append(tag("polyline", points=_points(places), class_=f"s{i % COLOURS} line"))
        for (x, y), row in zip(places, cell["bins"], strict=True):
            shares = f"confidence {row['confidence']:.0f}, accuracy {row['accuracy']:.0f}"
            told_bin = f"{row['examples']:,} answers: {shares}"
            width = 2 + 6 * math.sqrt(row["examples"] / cell["examples"])
            dot = tag(
                "circle",
                tag("title", told_bin),
                cx=f"{x:.1f}",
                cy=f"{y:.1f}",
                r=f"{width:.1f}",
                class_=colour(i),
            )
            parts.append(dot)
        told.append(f"{title}: ECE {cell['ece']:.1f} ({cell['examples']:,})" if len(titles) > 1 else
                    f"ECE {cell['ece']:.1f} over {cell['examples']:,} answers")  # fmt: skip
    picture = tag("svg", *parts, viewBox="0 0 240 238", class_="plot", role="img",
                  aria_label=f"Accuracy by confidence, {caption}. {'; '.join(told)}")  # fmt: skip
    words = tag("figcaption", tag("b", caption), ". ", "; ".join(told))
    return tag("figure", picture, words, class_="reliability")


def curve(
    steps: Sequence[int],
    lines: Mapping[str, Sequence[Score]],
    label: str,
    chosen: int | None = None,
    names: Sequence[str] = (),
    axis: str = "training step",
) -> Markup:
    """Scores over training steps with their intervals; the chosen step is marked.

    Args:
      lines: by name, one score for each step.
      names: what each step is called; () for its number.
      axis: what the steps are.
    """
    called = dict(zip(steps, names, strict=True)) if names else {step: f"{step:,}" for step in steps}
    left, top, width, height = 42, 10, 585, 230
    values = [v for line in lines.values() for s in line for v in (s.mean, s.low, s.high) if v is not None]
    low, high = _span(values)
    first, last = min(steps), max(steps)

    def at(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / (last - first) if last > first else 0.5
        return left + width * across, top + height * (high - value) / (high - low)

    parts = []
    for share in range(5):
        value = low + (high - low) * share / 4
        y = at(first, value)[1]
        parts += [_segment(left, y, left + width, y, "grid"), _text(f"{value:g}", left - 6, y + 4, "end")]
    shown = steps if names or len(steps) <= 9 else [steps[i * (len(steps) - 1) // 8] for i in range(9)]
    parts += [_text(called[step], at(step, low)[0], top + height + 22) for step in shown]
    parts.append(_text(axis, left + width / 2, top + height + 46))
    if chosen is not None:
        x = at(chosen, low)[0]
        parts += [_segment(x, top, x, top + height, "ideal")]
    for i, line in enumerate(lines.values()):
        known = [(step, score) for step, score in zip(steps, line, strict=True) if score.mean is not None]
        banded = [(step, score) for step, score in known if score.low is not None]
        edge = [at(s, v.high) for s, v in banded] + [at(s, v.low) for s, v in reversed(banded)]
        if edge:
            parts.append(tag("polygon", points=_points(edge), class_=f"{colour(i)} band"))
        points = [at(step, score.mean) for step, score in known]
        parts.append(tag("polyline", points=_points(points), class_=f"s{i % COLOURS} line"))
        for (x, y), (step, score) in zip(points, known, strict=True):
            mark = " chosen" if step == chosen else ""
            parts.append(
                tag("circle", tag("title", f"{axis} {called[step]}: {score}"), cx=f"{x:.1f}", cy=f"{y:.1f}",
                    r="6" if mark else "3.5", class_=colour(i) + mark)
            )  # fmt: skip
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{axis} {called[step]} {score.short}" for step, score in zip(steps, line, strict=True))
        for name, line in lines.items()
    )
    return tag("figure", tag("svg", *parts, viewBox="0 0 655 296", class_="plot", role="img",
                             aria_label=f"{label}. {told}"), class_="curve")  # fmt: skip


def _axis(value: float) -> int:
    """The end of an axis that begins at 0."""
    return next(end for end in (4, 8, 20, 40, 60, 80, 100) if value <= end or end == 100)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that need not begin at 0, four whole steps apart."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = next(
        s for s in (0.25, 0.5, 1, 2.5, 5, 10, 25) if 4 * s >= high - math.floor(low / s) * s or s == 25
    )
    start = math.floor(low / step) * step
    return start, start + 4 * step


def _bar(score: Score, top: int, number: int, label: str) -> Markup:
    parts = [_line(share, share, 0, 18, "grid") for share in (0, 25, 50, 75, 100)]
    if score.mean is not None:
        width = f"{100 * score.mean / top:.3f}%"
        parts.append(tag("rect", y="3", width=width, height="12", rx="2", class_=colour(number)))
    if score.low is not None and not math.isclose(score.low, score.high):
        low, high = 100 * score.low / top, 100 * score.high / top
        parts += [_line(low, high, 9, 9), _line(low, low, 6, 12), _line(high, high, 6, 12)]
    return tag("svg", *parts, role="img", aria_label=label)


def _line(x1: float, x2: float, y1: int, y2: int, kind: str = "whisker") -> Markup:
    return tag("line", x1=f"{x1:.3f}%", x2=f"{x2:.3f}%", y1=str(y1), y2=str(y2), class_=kind)


def _ticks(top: int) -> Markup:
    anchors = {0: "start", 100: "end"}
    texts = (
        tag("text", f"{top * share // 100}", x=f"{share}%", y="12", text_anchor=anchors.get(share, "middle"),
            class_="tick")
        for share in (0, 25, 50, 75, 100)
    )  # fmt: skip
    return tag("svg", *texts, aria_hidden="true")


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(text: str, x: float, y: float, anchor: str = "middle") -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_="tick")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
