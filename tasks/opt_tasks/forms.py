"""How a line of each of OPT's evaluation files becomes a question with its candidates."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files

Fields = dict[str, Any]

_POSSESSIVES = {"his", "her", "its", "their", "our", "my"}
#: Words that begin the name of a referent and are in lower case inside a sentence.
_LOWERED = {"A", "An", "The", "His", "Her", "Their", "My", "It", "They", "She", "He"}


def choices(path: str) -> Iterator[Fields]:
    """{query, choices, gold}: a question and its answers, of which `gold` is right."""
    for line, row in files.json_lines(path):
        options = files.strings(row, "choices", path, line)
        yield _ranked(
            line, files.field(row, "query", str, path, line), options, _gold(row, options, path, line)
        )


def options(path: str) -> Iterator[Fields]:
    """{context_options, continuation, gold}: a sentence with either referent put in for its pronoun.

    What the options have in common is the source, the rest with the continuation the candidates. GPT-3 compares
    the continuation's likelihood after either option; the scorer `partial` does so.
    """
    for line, row in files.json_lines(path):
        contexts = files.strings(row, "context_options", path, line)
        continuation = files.field(row, "continuation", str, path, line)
        yield _referents(line, contexts, continuation, _gold(row, contexts, path, line))


def continuation(path: str) -> Iterator[Fields]:
    """{context, continuation}: text and what comes next."""
    for line, row in files.json_lines(path):
        context, target = (files.field(row, name, str, path, line) for name in ("context", "continuation"))
        yield {"uid": str(line), "source": context, "target": target.strip()}


def answer(path: str) -> Iterator[Fields]:
    """{context, answer, aliases?, chain_of_thought?}: a question with one or several right answers."""
    for line, row in files.json_lines(path):
        context, target = (files.field(row, name, str, path, line) for name in ("context", "answer"))
        aliases = files.strings(row, "aliases", path, line) if "aliases" in row else []
        rationale = files.field(row, "chain_of_thought", str, path, line) if "chain_of_thought" in row else ""
        references = list(dict.fromkeys([target, *aliases]))
        yield {
            "uid": str(line),
            "source": context,
            "target": target,
            "references": references,
            "rationale": rationale,
        }


def rte(path: str) -> Iterator[Fields]:
    """SuperGLUE's {premise, hypothesis, label}, or GLUE's {sentence1, sentence2, label} with a number."""
    for line, row in files.json_lines(path):
        names = ("premise", "hypothesis") if "premise" in row else ("sentence1", "sentence2")
        premise, hypothesis = (files.field(row, name, str, path, line) for name in names)
        gold = _label(row, ("entailment", "not_entailment"), path, line)
        question = f"{premise}\nQuestion: {hypothesis} True or False?\nAnswer:"
        yield _ranked(line, question, ["True", "False"], gold)


def cb(path: str) -> Iterator[Fields]:
    """{premise, hypothesis, label}, the label by its name or by its number."""
    for line, row in files.json_lines(path):
        premise, hypothesis = (files.field(row, name, str, path, line) for name in ("premise", "hypothesis"))
        gold = _label(row, ("entailment", "contradiction", "neutral"), path, line)
        question = f"{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer:"
        yield _ranked(line, question, ["True", "False", "Neither"], gold)


def wic(path: str) -> Iterator[Fields]:
    """{sentence1, sentence2, start1, end1, label}: does a word mean the same in both sentences?"""
    for line, row in files.json_lines(path):
        first, second = (files.field(row, name, str, path, line) for name in ("sentence1", "sentence2"))
        start, end = (files.field(row, name, int, path, line) for name in ("start1", "end1"))
        question = f"Is the word '{first[start:end]}' used in the same way in the two sentences above?"
        source = f"Sentence 1: {first}\nSentence 2: {second}\nQuestion: {question}\nAnswer:"
        yield _yes_or_no(line, source, row, path)


def wsc(path: str) -> Iterator[Fields]:
    """{text, target: {span1_text, span2_text, span2_index}, label}: does the pronoun mean the noun?"""
    for line, row in files.json_lines(path):
        words = files.field(row, "text", str, path, line).split(" ")
        target = files.field(row, "target", dict, path, line)
        noun, pronoun = (files.field(target, name, str, path, line) for name in ("span1_text", "span2_text"))
        place = files.field(target, "span2_index", int, path, line)
        size = len(pronoun.split(" "))
        # The pronoun may carry punctuation that its span leaves out.
        marked = " ".join(words[place : place + size]).replace(pronoun, f"*{pronoun}*", 1)
        passage = " ".join([*words[:place], marked, *words[place + size :]])
        question = f'In the passage above, does the pronoun "*{pronoun}*" refer to "*{noun}*"?'
        yield _yes_or_no(line, f"Passage: {passage}\nQuestion: {question}\nAnswer:", row, path)


def multirc(path: str) -> Iterator[Fields]:
    """Passages with questions with answers, each right or wrong; one example an answer."""
    for line, row in files.json_lines(path):
        passage = files.field(row, "passage", dict, path, line)
        text = files.field(passage, "text", str, path, line)
        for i, question in enumerate(files.field(passage, "questions", list, path, line)):
            asked = files.field(question, "question", str, path, line)
            for k, option in enumerate(files.field(question, "answers", list, path, line)):
                said = files.field(option, "text", str, path, line)
                source = f"{text.strip()}\nQuestion: {asked}\nAnswer: {said}\nIs the answer correct?"
                yield _yes_or_no(line, source, option, path) | {"uid": f"{line}-{i}-{k}"}


def hellaswag(path: str) -> Iterator[Fields]:
    """{activity_label, ctx_a, ctx_b, endings, label}: which ending follows?"""
    for line, row in files.json_lines(path):
        activity, first, second = (
            files.field(row, name, str, path, line) for name in ("activity_label", "ctx_a", "ctx_b")
        )
        endings = [_without_markup(text) for text in files.strings(row, "endings", path, line)]
        label = files.field(row, "label", (str, int), path, line)
        gold = _in_range(int(label) if str(label).isdigit() else -1, endings, path, line, "label")
        yield _ranked(line, _without_markup(f"{activity}: {first} {second.capitalize()}"), endings, gold)


def story_cloze(path: str) -> Iterator[Fields]:
    """StoryCloze's CSV: four sentences and two endings, of which AnswerRightEnding names the right one."""
    for line, row in files.table(path):
        names = [f"InputSentence{number}" for number in range(1, 5)]
        endings = [f"RandomFifthSentenceQuiz{number}" for number in (1, 2)]
        for name in (*names, *endings, "AnswerRightEnding"):
            if name not in row:
                raise InputError("the file has no such column", path=path, line=1, field=name)
        right = row["AnswerRightEnding"].strip()
        gold = _in_range(int(right) - 1 if right.isdigit() else -1, endings, path, line, "AnswerRightEnding")
        yield _ranked(line, " ".join(row[name] for name in names), [row[name] for name in endings], gold)


def collection(path: str) -> Iterator[Fields]:
    """Davis's XML collection of Winograd schemas, each a text around a pronoun, and two referents."""
    try:
        root = ElementTree.fromstring(epath.Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except ElementTree.ParseError as error:
        raise InputError(f"is not XML: {error.msg}", path=path, line=error.position[0]) from error
    for number, schema in enumerate(root.iter("schema"), start=1):
        before, pronoun, after = (
            _words(schema.findtext(f"text/{name}")) for name in ("txt1", "pron", "txt2")
        )
        named = [_words(found.text) for found in schema.iterfind("answers/answer")]
        right = _words(schema.findtext("correctAnswer"))[:1]
        if not (pronoun and after and all(named)) or not right or right not in "ABCDEFGH"[: len(named)]:
            raise InputError(f"schema {number} lacks a text, a referent or the right one", path=path)
        begins = not before or before.endswith((".", "!", "?"))
        contexts = [f"{before} {_put_in(name, pronoun, begins)}".strip() for name in named]
        yield _referents(number, contexts, after, "ABCDEFGH".index(right))


#: By the name that the definitions use.
FORMS: dict[str, Callable[[str], Iterator[Fields]]] = {
    form.__name__: form
    for form in (
        *(choices, options, continuation, answer, rte, cb),
        *(wic, wsc, multirc, hellaswag, story_cloze, collection),
    )
}
#: Forms whose answers are not chosen but written.
GENERATED = ("continuation", "answer")


def _ranked(number: int, source: str, candidates: Sequence[str], gold: int) -> Fields:
    return {
        "uid": str(number),
        "source": source,
        "target": candidates[gold],
        "candidates": list(candidates),
    }


def _yes_or_no(line: int, source: str, row: Fields, path: str) -> Fields:
    label = files.field(row, "label", (bool, int), path, line)
    return _ranked(line, source, ["no", "yes"], int(bool(label)))


def _referents(number: int, contexts: Sequence[str], continuation: str, gold: int) -> Fields:
    """A sentence up to where the contexts part, and what follows with either of them."""
    words = [context.split(" ") for context in contexts]
    alike = [len(set(column)) == 1 for column in zip(*words, strict=False)]
    shared = [*alike, False].index(False)
    candidates = [" ".join([*own[shared:], continuation.strip()]) for own in words]
    return _ranked(number, " ".join(words[0][:shared]), candidates, gold)


def _put_in(name: str, pronoun: str, begins: bool) -> str:
    """A referent in the place of a pronoun."""
    first, _, rest = name.partition(" ")
    if not begins and first in _LOWERED:
        name = f"{first.lower()} {rest}".strip()
    return f"{name}'s" if pronoun.lower() in _POSSESSIVES else name


def _gold(row: Fields, candidates: Sequence[str], path: str, line: int) -> int:
    return _in_range(files.field(row, "gold", int, path, line), candidates, path, line, "gold")


def _label(row: Fields, names: Sequence[str], path: str, line: int) -> int:
    label = files.field(row, "label", (str, int), path, line)
    found = names.index(label) if label in names else label if isinstance(label, int) else -1
    return _in_range(found, names, path, line, "label")


def _in_range(number: int, candidates: Sequence[str], path: str, line: int, field: str) -> int:
    if not 0 <= number < len(candidates):
        raise InputError(f"names none of the {len(candidates)} candidates", path=path, line=line, field=field)
    return number


def _words(text: str | None) -> str:
    return " ".join((text or "").split())


def _without_markup(text: str) -> str:
    """WikiHow's marks, such as [header] and [title], taken out."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ").strip()
