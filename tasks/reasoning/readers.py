"""Reads the files of the chain-of-thought data sets: questions whose answers come with the reasoning."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from iml.errors import InputError
from tasks import files
from tasks.files import field, strings

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_OPTIONS = re.compile(r"\s*\nOptions:\n(.*)\Z", re.DOTALL)
_LETTER = re.compile(r"\([A-Z]\)")
_QASC_PARTS = ("fact1", "fact2", "combinedfact")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What a reader takes from a file.

    Attributes:
      uid: unique within the file.
      question: all that is asked, without the answers to choose between.
      answer: the final answer.
      rationale: what leads to it, "" where the file tells none.
      options: the answers to choose between, if there are any.
      also: other forms of the answer, such as the letter of the right option.
    """

    uid: str
    question: str
    answer: str
    rationale: str
    options: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def cot(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """FLAN's chain-of-thought TSV; the lines under `Options:` become options.

    Where the answer is an option's letter, "(C)", the option's text is taken and the letter is another form.
    """
    for number, question, answer, rationale in read_cot_tsv(path):
        listed = _OPTIONS.search(question)
        options = [line.removeprefix("- ").strip() for line in listed[1].split("\n")] if listed else []
        question = question[: listed.start()] if listed else question
        meant = [option.removeprefix(answer).strip() for option in options if option.startswith(f"{answer} ")]
        also = ()
        if _LETTER.fullmatch(answer) and meant:
            answer, also = meant[0], (answer, answer.strip("()"))
        yield Problem(str(number), question, answer, rationale, tuple(filter(None, options)), also)


def read_cot_tsv(path: epath.Path) -> Iterator[tuple[int, str, str, str]]:
    r"""(line, question, answer, rationale) of a file of FLAN's `cot_data`; `\n` in it stands for a line break."""
    for number, columns in files.columns(path, 3):
        question, answer, rationale = (column.replace("\\n", "\n") for column in columns[:3])
        yield number, question, answer, rationale


def gsm8k(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """GSM8K without its `<<calculator marks>>`; what stands after `####` is the answer."""
    for number, record in files.json_lines(path):
        rationale, mark, answer = field(record, "answer", str, path, number).rpartition("\n####")
        if not mark:
            raise InputError("has no '#### result'", path=path, line=number, field="answer")
        rationale = _CALCULATOR.sub("", rationale).replace(" ** ", " ")
        answer = answer.strip()
        also = (answer.replace(",", ""),) if "," in answer else ()
        yield Problem(str(number), field(record, "question", str, path, number), answer, rationale, also=also)


def aqua(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """AQuA: the answer is the text of the right option, the letter another form of it."""
    for number, record in files.json_lines(path):
        options = strings(record, "options", path, number)
        letter = field(record, "correct", str, path, number)
        parts = [option.partition(")") for option in options]
        right = [text.strip() for name, _, text in parts if name.strip() == letter]
        if not right:
            raise InputError(f"no option has the letter {letter!r}", path=path, line=number, field="correct")
        question, rationale = (field(record, name, str, path, number) for name in ("question", "rationale"))
        yield Problem(str(number), question, right[0], rationale, tuple(options), (letter,))


def strategyqa(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """StrategyQA: yes or no; the facts are the reasoning."""
    for number, record in enumerate(files.json_records(path), start=1):
        question = field(record, "question", str, path)
        answer = "yes" if field(record, "answer", bool, path) else "no"
        yield Problem(
            str(record.get("qid", number)), question, answer, sentences(strings(record, "facts", path))
        )


def creak(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """CREAK: a claim, labelled with the string "true" or "false"; its contrast set has no explanations."""
    for number, record in files.json_lines(path):
        claim, label, why = (
            field(record, name, str, path, number) for name in ("sentence", "label", "explanation")
        )
        if label not in ("true", "false"):
            raise InputError(
                f'must be "true" or "false", not {label!r:.60}', path=path, line=number, field="label"
            )
        uid = str(record.get("ex_id", number))
        question = f"Is the following claim true or false?\n{claim}"
        yield Problem(uid, question, label, "" if why == "n/a" else why, ("true", "false"))


def cos_e(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """CoS-E: explanations only, by the id of their question in CommonsenseQA.

    Explanations of questions that CommonsenseQA's files here do not have are left out.
    """
    questions = commonsense_questions(path)
    for number, uid, explanation in read_cos_e(path):
        if uid in questions:
            yield dataclasses.replace(questions[uid], uid=f"{uid}-{number}", rationale=explanation)


def read_cos_e(path: epath.Path) -> Iterator[tuple[int, str, str]]:
    """(line, id of the question, explanation in free text)."""
    for number, record in files.json_lines(path):
        told = field(record, "explanation", dict, path, number)
        uid = field(record, "id", str, path, number)
        yield number, uid, field(told, "open-ended", str, path, number)


def ecqa(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """ECQA: its explanations with CommonsenseQA's questions and its authors' lists of ids, or joined as CSV."""
    if path.name.startswith("cqa_data"):
        for number, row in files.table(path):
            try:
                options = tuple(row[f"q_op{place}"] for place in range(1, 6))
                problem = Problem(row["q_no"], row["q_text"], row["q_ans"], row["taskB"].strip(), options)
            except KeyError as error:
                raise InputError(f"lacks the column {error}", path=path, line=number) from error
            yield problem
        return
    questions = commonsense_questions(path)
    name = {"train": "train", "validation": "val", "test": "test"}[split]
    wanted = {line.strip() for _, line in files.lines(path.parent / "author_split" / f"{name}_ids.txt")}
    for number, record in files.json_lines(path):
        uid = field(record, "id", str, path, number)
        if uid in wanted and uid in questions:
            why = field(record, "explanation", str, path, number)
            yield dataclasses.replace(questions[uid], rationale=why)


def commonsense_questions(path: epath.Path) -> Mapping[str, Problem]:
    """CommonsenseQA's questions by their ids, from the files nearest to one that refers to them.

    Raises:
      InputError: there are none.
    """
    names = ("cqa", "commonsense_qa", "CommonsenseQA", "zero_shot_cot/CommonsenseQA")
    for folder in list(path.parents)[:3]:
        home = next((folder / name for name in names if (folder / name).exists()), None)
        if home is not None:
            return _commonsense_questions(home)
    raise InputError(
        "refers to CommonsenseQA, whose files are not here",
        path=path,
        remedy="Put train_rand_split.jsonl and dev_rand_split.jsonl in a folder commonsense_qa beside the set's",
    )


@functools.lru_cache(maxsize=2)
def _commonsense_questions(home: epath.Path) -> Mapping[str, Problem]:
    questions = {}
    for path in sorted(home.glob("*.jsonl")):
        for number, record in files.json_lines(path):
            problem = choice_question(record, path, number)
            questions[problem.uid] = problem
    return questions


def choice_question(record: Any, path: epath.Path, number: int) -> Problem:
    """A record of CommonsenseQA's and QASC's kind: a stem, lettered choices and the key of the right one."""
    question = field(record, "question", dict, path, number)
    key = field(record, "answerKey", str, path, number)
    choices = field(question, "choices", list, path, number)
    texts = {
        field(choice, "label", str, path, number): field(choice, "text", str, path, number)
        for choice in choices
    }
    if key not in texts:
        raise InputError(f"no choice has the letter {key!r}", path=path, line=number, field="answerKey")
    uid, stem = field(record, "id", str, path, number), field(question, "stem", str, path, number)
    return Problem(uid, stem, texts[key], "", tuple(texts.values()), (key,))


def qasc(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """QASC: two facts and what follows from them."""
    for number, record in files.json_lines(path):
        facts = [field(record, name, str, path, number) for name in _QASC_PARTS]
        yield dataclasses.replace(choice_question(record, path, number), rationale=sentences(facts))


def qed(path: epath.Path, split: str = "") -> Iterator[Problem]:
    """QED: the sentence that a question about a paragraph is answered by, and what in it the question means.

    Where no single sentence answers it, the first answer of Natural Questions stands, without a rationale.
    """
    for number, record in files.json_lines(path):
        note = field(record, "annotation", dict, path, number)
        texts = [field(record, name, str, path, number) for name in ("paragraph_text", "question_text")]
        try:
            if chosen := note.get("selected_sentence"):
                answers = [part["paragraph_reference"]["string"] for part in note["answer"]]
                pairs = [
                    (pair["question_reference"]["string"], pair["sentence_reference"]["string"])
                    for pair in note.get("referential_equalities", ())
                ]
                meant = [f'"{asked}" in the question is "{said}" here' for asked, said in pairs if said]
                rationale = sentences([chosen["string"], *meant])
            else:
                answers = [span["string"] for span in record["original_nq_answers"][0]]
                rationale = ""
            answer = ", ".join(answers)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError("has no answer", path=path, line=number, field="annotation") from error
        uid = str(record.get("example_id", number))
        yield Problem(uid, f"{texts[0]}\nQuestion: {texts[1]}", answer, rationale, also=tuple(answers))


def sentences(parts: Sequence[str]) -> str:
    """Texts as sentences one after the other: each ends with a full stop unless it has an end of its own."""
    stripped = (part.strip() for part in parts)
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in stripped if part)
