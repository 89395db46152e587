"""Answers to choose between: whether a prompt lists them, how, and which form the answer has then.

After the Flan Collection (arXiv 2301.13688, section 3): options stand in some prompts and not in others, marked
in several ways, and the answer is the option's text, its letter, or both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from iml.bench.card import Example
from iml.data.checks import as_strings, check_share, check_templates
from iml.data.random import Draws

#: What a marker may name: the option's text and its letter or number.
_LABELS = ("upper", "lower", "number")
#: Options that can have a letter.
_MOST = 26
#: A list of options as FLAN's and other templates write it: often a heading, and a line for each.
_LIST = re.compile(
    r"\n*^(?:(?:options|choices|answer choices)[ ]*:[ ]*\n)?"
    r"(?P<lines>(?:(?:[-*]|\(\w\)|\[\w\]|\w[.)])[ ][^\n]*(?:\n|\Z))+)",
    re.IGNORECASE | re.MULTILINE,
)
_MARK = re.compile(r"(?:[-*]|\(\w\)|\[\w\]|\w[.)])[ ]")


@dataclasses.dataclass(frozen=True)
class Options:
    """How the answers to choose between are shown, for examples whose target is one of their candidates.

    Attributes:
      shown: share of the prompts that list them; the others lose the list that a source may have.
      markers: one is drawn for each prompt that lists them, in which {text} is the option's text, and {upper},
        {lower} or {number} its place.
      headings: one is drawn to stand above the list; "" for none.
      targets: one is drawn as the form of the answer where the marker has a letter or number: {letter} is that,
        {text} the option's text.
    """

    shown: float = 0.5
    markers: Sequence[str] = (
        "- {text}",
        "({upper}) {text}",
        "{lower}) {text}",
        "[{upper}] {text}",
        "{number}. {text}",
    )
    headings: Sequence[str] = ("OPTIONS:", "Options:", "Choices:", "")
    targets: Sequence[str] = ("{text}", "{text}", "{letter}", "({letter}) {text}")

    def __post_init__(self):
        for name in ("markers", "headings", "targets"):
            as_strings(self, name)
        check_share(self, "shown")
        check_templates(self, "markers", ("text", *_LABELS), ("text",))
        check_templates(self, "targets", ("text", "letter"))

    def draw(self, draws: Draws) -> OptionStyle:
        """How the prompt with these draws shows options; the example and its demonstrations alike."""
        if draws.uniform("options") >= self.shown:
            return OptionStyle()
        marker = draws.choice("option_marker", self.markers)
        has_letter = any(f"{{{name}}}" in marker for name in _LABELS)
        target = draws.choice("option_target", self.targets) if has_letter else "{text}"
        return OptionStyle(marker, draws.choice("option_heading", self.headings), target)


@dataclasses.dataclass(frozen=True, slots=True)
class OptionStyle:
    """How one prompt shows options.

    Attributes:
      marker: template of a line, "" if the options are not shown.
      heading: stands above them.
      target: template of the answer.
    """

    marker: str = ""
    heading: str = ""
    target: str = "{text}"

    def apply(self, example: Example) -> Example:
        """The example in this style.

        As it was come back: an example whose target is none of its candidates or that has over 26; if they
        should be listed, one whose words name them all without a list, or whose source ends with ":", the cue
        for the answer; if not, one without a list, or with words that lead up to it ("Possibilities:").
        """
        options = example.candidates
        if not 2 <= len(options) <= _MOST or example.target not in options or not example.source:
            return example
        start, end, listed = _find_list(example.source, options)
        before, after = example.source[:start].rstrip("\n"), example.source[end:]
        # Words that lead up to the list, or to the answer.
        led_up_to = before.rstrip().endswith(":")
        if not self.marker:
            kept = not listed or led_up_to
            return example if kept else dataclasses.replace(example, source=_joined(before, after))
        if not listed and (led_up_to or _names_all(example.source, options)):
            return example
        lines = [self.heading] if self.heading and not led_up_to else []
        answers = {}
        for place, option in enumerate(listed or options):
            labels = {"upper": chr(65 + place), "lower": chr(97 + place), "number": str(place + 1)}
            lines.append(self.marker.format(text=option, **labels))
            letter = next((labels[name] for name in _LABELS if f"{{{name}}}" in self.marker), "")
            answers[option] = self.target.format(text=option, letter=letter)
        return dataclasses.replace(
            example,
            source=_joined(before, *lines, after),
            target=answers[example.target],
            references=tuple(answers.get(reference, reference) for reference in example.references),
            candidates=tuple(answers[option] for option in options),
        )


def _joined(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def _find_list(source: str, options: Sequence[str]) -> tuple[int, int, tuple[str, ...]]:
    """Where a source lists just these options, and in which order; its end, its end and () if it does not."""
    for found in _LIST.finditer(source):
        items = tuple(_MARK.sub("", line, count=1) for line in found["lines"].rstrip("\n").split("\n"))
        stripped = {item.strip(): item for item in items}
        if len(stripped) == len(items) and stripped.keys() == {option.strip() for option in options}:
            by_text = {option.strip(): option for option in options}
            return found.start(), found.end(), tuple(by_text[item.strip()] for item in items)
    return len(source), len(source), ()


def _names_all(source: str, options: Sequence[str]) -> bool:
    """Whether every option stands in the source, as whole words and in any case."""
    source = source.casefold()
    return all(
        option.strip().casefold() in source
        and re.search(rf"(?<!\w){re.escape(option.strip().casefold())}(?!\w)", source)
        for option in options
    )
