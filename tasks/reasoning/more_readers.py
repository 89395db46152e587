"""Reads the chain-of-thought data sets that have forms of their own: dialogues, proofs, CSV files, LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files
from tasks.files import field
from tasks.reasoning.readers import Problem, sentences

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*")
_TOKEN = re.compile(r"->|%|[()]|[^\s()%]+")


def coqa(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """CoQA: a question about a story after those before it; the span that answers it is the reasoning."""
    stories = files.json_value(path)
    for story in field(stories, "data", list, path):
        text, uid = field(story, "story", str, path), str(story.get("id", ""))
        asked, answers = (field(story, name, list, path) for name in ("questions", "answers"))
        if len(asked) != len(answers):
            raise InputError(f"story {uid} has {len(answers)} answers to {len(asked)} questions", path=path)
        said = ""
        for turn, (question, given) in enumerate(zip(asked, answers, strict=True)):
            query, answer = (field(part, "input_text", str, path) for part in (question, given))
            said += f"\nQuestion: {query}"
            yield Problem(f"{uid}-{turn}", text + said, answer, field(given, "span_text", str, path).strip())
            said += f"\nAnswer: {answer}"


def esnli(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """e-SNLI's CSV: premise, hypothesis, label and up to three explanations, of which the first is taken."""
    labels = ("entailment", "neutral", "contradiction")
    for number, row in files.table(path):
        try:
            premise, hypothesis = row["Sentence1"], row["Sentence2"]
            label, why, uid = row["gold_label"], row["Explanation_1"], row["pairID"]
        except KeyError as error:
            raise InputError(f"lacks the column {error}", path=path, line=1) from error
        if label not in labels:
            raise InputError(f"unknown label {label!r:.60}", path=path, line=number, field="gold_label")
        question = (
            f"Premise: {premise}\nHypothesis: {hypothesis}\nDoes the hypothesis follow from the premise?"
        )
        yield Problem(f"{uid}-{number}", question, label, why, labels)


def math(path: epath.Path, split: str = "") -> Iterator[Problem]:
    r"""MATH: one file a problem, or JSON lines; the answer stands in the solution's last `\boxed{}`."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        records = list(files.json_lines(path))
    else:
        records = [(None, files.json_value(path))]
    for number, record in records:
        problem, solution = (field(record, name, str, path, number) for name in ("problem", "solution"))
        answer = boxed(solution)
        if answer is None:
            raise InputError(r"has no \boxed{answer}", path=path, line=number, field="solution")
        yield Problem(str(number or 1), problem, answer, solution)


def boxed(solution: str) -> str | None:
    r"""What the last `\boxed{...}` of a solution holds, braces within it and all; None if there is none."""
    places = [found.end() for found in _BOXED.finditer(solution)]
    if not places:
        return None
    rest, depth = solution[places[-1] :], 0
    if not rest.startswith("{"):
        return (rest.split("$")[0].split() or [None])[0]
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            return rest[1:place].strip()
    return None


def proofwriter(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """ProofWriter: whether a statement follows from facts and rules; a proof is told step by step.

    A statement that cannot be proved either way ("Unknown") has no rationale.
    """
    for number, record in files.json_lines(path):
        theory = field(record, "theory", str, path, number)
        names = {
            name: field(part, "text", str, path, number)
            for kind in ("triples", "rules")
            for name, part in field(record, kind, dict, path, number).items()
        }
        for name, asked in field(record, "questions", dict, path, number).items():
            answer = str(field(asked, "answer", (bool, str), path, number)).lower()
            proofs = asked.get("proofsWithIntermediates") or ()
            try:
                rationale = told_proof(proofs[0], names) if proofs and answer != "unknown" else ""
            except (KeyError, IndexError, TypeError) as error:
                problem = f"{name} has a proof that cannot be read"
                raise InputError(problem, path=path, line=number, field="proofsWithIntermediates") from error
            statement = field(asked, "question", str, path, number)
            question = f"{theory}\nIs the following statement true, false or unknown?\n{statement}"
            uid = f"{record.get('id', number)}-{name}"
            yield Problem(uid, question, answer, rationale, ("true", "false", "unknown"))


def told_proof(proof: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A proof such as `((triple2) -> (rule6 % int1))` in sentences: facts, the rule, then what follows.

    Raises:
      KeyError, IndexError, TypeError: it is none.
    """
    concluded = {name: part["text"] for name, part in dict(proof.get("intermediates") or {}).items()}
    known, tokens = {**names, **concluded}, _TOKEN.findall(proof["representation"])
    told: list[str] = []

    def tell(text: str) -> None:
        if text and text not in told:
            told.append(text)

    def read(place: int) -> int:
        """Tells the term at a place and returns the place after it."""
        if tokens[place] != "(":
            tell(known.get(tokens[place], ""))
            return place + 1
        place += 1
        while tokens[place] != ")":
            if tokens[place] == "%":
                tell(f"Therefore, {known[tokens[place + 1]]}")
                place += 2
            else:
                place = place + 1 if tokens[place] == "->" else read(place)
        return place + 1

    read(0)
    return sentences(told)


def sensemaking(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """SenseMaking (SemEval-2020 task 4, "ALL data"): which of two statements is against common sense, and why."""
    for number, row in files.table(path):
        try:
            sound, odd, why = (
                row[name] for name in ("Correct Statement", "Incorrect Statement", "Right Reason1")
            )
        except KeyError as error:
            raise InputError(f"lacks the column {error}", path=path, line=1) from error
        # Which comes first must tell nothing, and be the same whenever the file is read.
        pair = (sound, odd) if (len(sound) + len(odd) + number) % 2 else (odd, sound)
        options = ("Statement 1", "Statement 2")
        listed = "\n".join(f"{name}: {text}" for name, text in zip(options, pair, strict=True))
        question = f"Which of the two statements is against common sense?\n{listed}"
        yield Problem(str(number), question, options[pair.index(odd)], why, options)


def winowhy(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """WinoWhy: whom a pronoun means; each reason of a human that was found valid makes an example."""
    for number, record in enumerate(files.json_records(path), start=1):
        try:
            text = record["text"]
            sentence = " ".join(text[name].strip() for name in ("txt1", "pron", "txt2"))
            answers = tuple(answer.strip() for answer in record["answers"])
            answer = answers["AB".index(record["correctAnswer"].strip().rstrip("."))]
            reasons = [
                reason.strip()
                for reason, author, _, verdict in record["reasons"]
                if (author, verdict) == ("human", "Valid")
            ]
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"record {number} is not WinoWhy's", path=path) from error
        question = f'{sentence}\nWhom or what does "{text["pron"]}" refer to?'
        for place, reason in enumerate(reasons):
            yield Problem(f"{number}-{place}", question, answer, reason, answers)
