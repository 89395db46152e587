"""What a compiled step sends between chips, read from its HLO text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\) -> .* \{$")
_CALLED = re.compile(r"(calls|body|condition|to_apply|called_computations)=\{?%([\w.-]+)")
_OPERATION = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS = (
    re.compile(r"replica_groups=\{\{([\d,]+)\}"),
    re.compile(r"replica_groups=\[\d+,(\d+)\]"),
    re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}"),
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange in a step.

    Attributes:
      kind: "all-gather", "reduce-scatter", "all-reduce", "all-to-all" or "collective-permute".
      count: how often it happens in a step.
      sent: bytes that a chip sends in a step, by rings.
    """

    kind: str
    count: int
    sent: float


def collectives(hlo: str) -> list[Collective]:
    """The exchanges of a compiled program, each counted as often as the loops around it turn.

    The chips of a group of n send (n - 1)/n of what is gathered or scattered, twice that where a sum is given
    to all. A loop turns as often as the constant in its condition says. On TPUs an exchange that goes on beside
    arithmetic stands in several fusions, all with its channel's number; it is counted once.
    """
    bodies = _computations(hlo)
    entry = next(name for name, (first, _) in bodies.items() if first)
    totals: collections.Counter[str] = collections.Counter()
    sent: collections.defaultdict[str, float] = collections.defaultdict(float)
    for kind, times, size in _walk(bodies, entry, 1, scattered=False, seen=set()):
        totals[kind] += times
        sent[kind] += times * size
    return [Collective(kind, totals[kind], sent[kind]) for kind in sorted(totals)]


def _computations(hlo: str) -> dict[str, tuple[bool, list[str]]]:
    """By name: whether it is the entry, and its lines."""
    found: dict[str, tuple[bool, list[str]]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            lines = []
            found[start[2]] = (bool(start[1]), lines)
        else:
            lines.append(line)
    return found


def _walk(
    bodies: Mapping[str, tuple[bool, list[str]]], name: str, times: int, scattered: bool, seen: set[str]
) -> Iterator[tuple[str, int, float]]:
    """(kind, times, bytes sent each time) of all exchanges below a computation, but for channels `seen`."""
    for line in bodies.get(name, (False, []))[1]:
        operation = _OPERATION.search(line)
        if operation:
            channel = _CHANNEL.search(line)
            # On TPUs a sum that is scattered is an all-reduce within a fusion of that name; they share a number.
            kind = "reduce-scatter" if scattered else operation["kind"]
            if scattered or channel is None or channel[1] not in seen:
                yield kind, times, _sent(kind, scattered, operation, line)
            if channel and not scattered:
                seen.add(channel[1])
        called = dict(_CALLED.findall(line))
        if "body" in called:
            turns = _turns(bodies, called["condition"])
            yield from _walk(bodies, called["body"], times * turns, False, seen)
        elif "calls" in called:
            target = called["calls"]
            yield from _walk(bodies, target, times, target.startswith("all-reduce-scatter"), seen)


def _sent(kind: str, scattered: bool, operation: re.Match[str], line: str) -> float:
    sizes = [_size(*shape) for shape in _SHAPE.findall(operation["result"])]
    # Several arrays may go together; what begins a gathering gives what goes in beside what comes out.
    begun = operation["start"] and kind in ("all-gather", "collective-permute")
    size = max(sizes, default=0) if begun else sum(sizes)
    group = _group(line)
    share = (group - 1) / group if group else 1.0
    if kind == "all-reduce":
        return 2 * share * size
    if kind == "reduce-scatter" and not scattered:
        return share * size * group  # its result is but a part of what was summed
    return size if kind == "collective-permute" else share * size


def _size(kind: str, shape: str) -> int:
    return _BYTES.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)


def _group(line: str) -> int:
    """Chips that exchange with one another; 0 if it is not told."""
    listed, counted, named = (pattern.search(line) for pattern in _GROUPS)
    if listed:
        return listed[1].count(",") + 1
    if counted:
        return int(counted[1])
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return 0


def _turns(bodies: Mapping[str, tuple[bool, list[str]]], condition: str) -> int:
    """How often a loop turns: the bound that its counter is compared with."""
    pending, seen = [condition], set()
    bounds = []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in bodies.get(name, (False, []))[1]:
            bounds += [int(n) for n in re.findall(r"s32\[\][^=]* constant\((\d+)\)", line)]
            pending += [target for _, target in _CALLED.findall(line)]
    return max(bounds, default=1)
