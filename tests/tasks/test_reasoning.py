"""The chain-of-thought sets: genuine formats, the printed form, and the answer as a reference of its own."""

import json
import shutil

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.errors import InputError
from tasks import reasoning
from tasks.reasoning import more_readers as more
from tasks.reasoning import readers
from tests.tasks import registered

ASK = "Answer the following question by reasoning step by step.\n"
ASK_MATH = "Answer the following math question by reasoning step by step."


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    readers._commonsense_questions.cache_clear()
    yield
    registered.clear()


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


QUESTION = {
    "id": "c1",
    "answerKey": "B",
    "question": {
        "stem": "Where is milk?",
        "choices": [{"label": "A", "text": "shoe"}, {"label": "B", "text": "cow"}],
    },
}
QED = {
    "example_id": -5,
    "question_text": "who won",
    "paragraph_text": "Ann won the cup . It rained .",
    "original_nq_answers": [[{"string": "Ann"}]],
    "annotation": {
        "selected_sentence": {"string": "Ann won the cup . "},
        "answer": [{"paragraph_reference": {"string": "Ann"}}],
        "referential_equalities": [
            {"question_reference": {"string": "it"}, "sentence_reference": {"string": "the cup"}}
        ],
    },
}
COQA = {
    "data": [
        {
            "id": "s1",
            "story": "Ann has a red hat.",
            "questions": [{"input_text": "Who?"}, {"input_text": "Which colour?"}],
            "answers": [
                {"input_text": "Ann", "span_text": "Ann"},
                {"input_text": "red", "span_text": "a red hat"},
            ],
        }
    ]
}
PROOFS = [
    {
        "representation": "((((triple1) -> (rule1 % int2)) triple2) -> (rule2 % int1))",
        "intermediates": {"int1": {"text": "Bob is kind."}, "int2": {"text": "Bob is big."}},
    }
]
PROOFWRITER = {
    "id": "P-1",
    "theory": "Bob is red. Bob is old. Red people are big. If someone is big and old then they are kind.",
    "triples": {"triple1": {"text": "Bob is red."}, "triple2": {"text": "Bob is old."}},
    "rules": {
        "rule1": {"text": "Red people are big."},
        "rule2": {"text": "If someone is big and old then they are kind."},
    },
    "questions": {
        "Q1": {"question": "Bob is kind.", "answer": True, "proofsWithIntermediates": PROOFS},
        "Q2": {"question": "Bob is cold.", "answer": "Unknown"},
    },
}
WINOWHY = {
    "text": {"txt1": "The cup does not fit into the bag because", "pron": "it", "txt2": "is too large."},
    "answers": ["the cup", "the bag"],
    "correctAnswer": "A.",
    "reasons": [
        ["large things do not fit", "human", 1.0, "Valid"],
        ["bags are bags", "gpt", 1.0, "Valid"],
        ["no", "human", 0.2, "Invalid"],
    ],
}

#: Set, its files, split, instruction, source, rationale, target, further references.
SETS = {
    "gsm8k": (
        {"train.jsonl": lines({"question": "2+2000?", "answer": "It is <<2+2000=2002>>2,002\n#### 2,002"})},
        "train",
        ASK_MATH,
        "2+2000?",
        "It is 2,002",
        "It is 2,002. The answer is 2,002",
        ("2,002", "2002"),
    ),
    "aqua": (
        {
            "dev.json": lines(
                {"question": "q", "options": ["A)1", "B)2"], "rationale": "So B", "correct": "B"}
            )
        },
        "validation",
        ASK_MATH,
        "q\nA)1, B)2",
        "So B",
        "So B. The answer is 2",
        ("2", "B"),
    ),
    "strategyqa": (
        {
            "train.json": json.dumps(
                [{"qid": "x", "question": "Is it?", "answer": False, "facts": ["a", "b."]}]
            )
        },
        "train",
        ASK,
        "Is it?",
        "a. b.",
        "a. b. The answer is no",
        ("no",),
    ),
    "creak": (
        {
            "dev.json": lines(
                {"ex_id": "d", "sentence": "Ice is hot.", "label": "false", "explanation": "It is cold!"}
            )
        },
        "validation",
        ASK,
        "Is the following claim true or false?\nIce is hot.\ntrue, false",
        "It is cold!",
        "It is cold! The answer is false",
        ("false",),
    ),
    "cos_e": (
        {
            "../commonsense_qa/dev_rand_split.jsonl": lines(QUESTION),
            "v1.11/cose_dev_v1.11.jsonl": lines(
                {"id": "c1", "explanation": {"open-ended": "cows give milk", "selected": ""}},
                {"id": "c2", "explanation": {"open-ended": "not there", "selected": ""}},
            ),
        },
        "validation",
        ASK,
        "Where is milk?\nshoe, cow",
        "cows give milk",
        "cows give milk. The answer is cow",
        ("cow", "B"),
    ),
    "ecqa": (
        {
            "cqa/train_rand_split.jsonl": lines(QUESTION),
            "author_split/train_ids.txt": "c9\n",
            "author_split/val_ids.txt": "c1\n",
            "author_split/test_ids.txt": "c8\n",
            "ecqa.jsonl": lines(
                {"id": "c1", "positives": [], "negatives": [], "explanation": "Cows give milk."}
            ),
        },
        "validation",
        ASK,
        "Where is milk?\nshoe, cow",
        "Cows give milk.",
        "Cows give milk. The answer is cow",
        ("cow", "B"),
    ),
    "qasc": (
        {"train.jsonl": lines({**QUESTION, "fact1": "Cows give milk", "fact2": "b.", "combinedfact": "c"})},
        "train",
        ASK,
        "Where is milk?\nshoe, cow",
        "Cows give milk. b. c.",
        "Cows give milk. b. c. The answer is cow",
        ("cow", "B"),
    ),
    "qed": (
        {"qed-train.jsonlines": lines(QED)},
        "train",
        ASK,
        "Ann won the cup . It rained .\nQuestion: who won",
        'Ann won the cup . "it" in the question is "the cup" here.',
        'Ann won the cup . "it" in the question is "the cup" here. The answer is Ann',
        ("Ann",),
    ),
    "coqa": (
        {"coqa-train-v1.0.json": json.dumps(COQA)},
        "train",
        ASK,
        "Ann has a red hat.\nQuestion: Who?\nAnswer: Ann\nQuestion: Which colour?",
        "a red hat",
        "a red hat. The answer is red",
        ("red",),
    ),
    "esnli": (
        {
            "esnli_dev.csv": "pairID,gold_label,Sentence1,Sentence2,Explanation_1,Explanation_2\n"
            'p1,contradiction,"A man, asleep",He runs,"Who sleeps, runs not",x\n'
        },
        "validation",
        ASK,
        "Premise: A man, asleep\nHypothesis: He runs\nDoes the hypothesis follow from the premise?\n"
        "entailment, neutral, contradiction",
        "Who sleeps, runs not",
        "Who sleeps, runs not. The answer is contradiction",
        ("contradiction",),
    ),
    "math": (
        {
            "test/algebra/1.json": json.dumps(
                {"problem": "Half of 1?", "solution": r"It is \boxed{1}. No, $\boxed{\frac{1}{2}}$."}
            )
        },
        "test",
        ASK_MATH,
        "Half of 1?",
        r"It is \boxed{1}. No, $\boxed{\frac{1}{2}}$.",
        r"It is \boxed{1}. No, $\boxed{\frac{1}{2}}$. The answer is \frac{1}{2}",
        (r"\frac{1}{2}",),
    ),
    "proofwriter": (
        {"OWA/depth-5/meta-train.jsonl": lines(PROOFWRITER)},
        "train",
        ASK,
        f"{PROOFWRITER['theory']}\nIs the following statement true, false or unknown?\nBob is kind.\n"
        "true, false, unknown",
        "Bob is red. Red people are big. Therefore, Bob is big. Bob is old. "
        "If someone is big and old then they are kind. Therefore, Bob is kind.",
        "Bob is red. Red people are big. Therefore, Bob is big. Bob is old. "
        "If someone is big and old then they are kind. Therefore, Bob is kind. The answer is true",
        ("true",),
    ),
    "sensemaking": (
        {
            "test.csv": "Correct Statement,Incorrect Statement,Right Reason1\nI eat rice,I eat iron,Iron is hard\n"
        },
        "test",
        ASK,
        "Which of the two statements is against common sense?\nStatement 1: I eat iron\nStatement 2: I eat rice\n"
        "Statement 1, Statement 2",
        "Iron is hard",
        "Iron is hard. The answer is Statement 1",
        ("Statement 1",),
    ),
    "winowhy": (
        {"winowhy.json": json.dumps([WINOWHY])},
        "train",
        ASK,
        'The cup does not fit into the bag because it is too large.\nWhom or what does "it" refer to?\n'
        "the cup, the bag",
        "large things do not fit",
        "large things do not fit. The answer is the cup",
        ("the cup",),
    ),
}


def write(home, name, files):
    for file, content in files.items():
        path = home / "reasoning" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("name", SETS)
def test_a_set_in_its_documented_format(name, tmp_path):
    files, split, instruction, source, rationale, target, further = SETS[name]
    write(tmp_path, name, files)
    reasoning.register(str(tmp_path))
    [task] = registry.names()
    splits = registered.read_all()[task] if name != "ecqa" else {split: read_split(task, split)}
    example = splits[split][-1]
    assert (example.instruction, example.source, example.target) == (instruction, source, target)
    assert example.rationale == rationale and example.references == (target, *further)
    assert len(splits[split]) == (2 if name == "coqa" else 1)
    assert registry.card(task).category == "Reasoning" and registry.card(task).instruction_level == "task"


def read_split(task, split):
    return [Example.from_json(fields) for fields in seqio_bridge.read_fields(task, split)]


def test_the_fourteen_sets_of_the_paper_are_tried():
    assert set(reasoning.definitions()["sets"]) == {*SETS, "gsm8k_socratic"} and len(SETS) == 14


def test_prompts_look_as_printed(tmp_path):
    write(tmp_path, "creak", SETS["creak"][0])
    reasoning.register(str(tmp_path))
    [example] = registered.read("reasoning.creak")["validation"]
    shown = PromptFormat(delimiters=(" Output:",), definition_prefixes=("",), input_prefixes=("",))
    prompt = shown.render(example, registry.card("reasoning.creak"), (), Draws(0, "t", "u"))
    assert f"{prompt.source} {prompt.target}" == (
        "Answer the following question by reasoning step by step.\n\n"
        "Is the following claim true or false?\nIce is hot.\ntrue, false Output: It is cold! The answer is false"
    )


def test_every_real_file_is_read_and_its_examples_counted(real_data):
    home = real_data / "reasoning"
    known = registered.manifest(real_data, "reasoning")

    def count(reader, *paths, split=""):
        return sum(1 for path in paths for _ in reader(home / path, split))

    assert (
        count(
            readers.gsm8k,
            *(f"gsm8k/{name}" for name in ("train.jsonl.gz", "test.jsonl", "test_socratic.jsonl")),
        )
        == known["gsm8k"]
    )
    assert count(readers.aqua, *(f"aqua/{name}.json" for name in ("dev", "test", "dev.tok"))) == known["aqua"]
    assert count(readers.strategyqa, "strategyqa/train.json", "strategyqa/dev.json") == known["strategyqa"]
    assert count(readers.qed, "qed/qed-dev.jsonlines") == known["qed"]
    # A hundred of CREAK's claims come without labels, to be answered elsewhere.
    creak = count(readers.creak, *(f"creak/{name}.json" for name in ("train", "dev", "contrast_set")))
    assert creak + 100 == known["creak"]
    paths = sorted((home / "cos_e" / "v1.11").glob("*.jsonl"))
    assert sum(1 for path in paths for _ in readers.read_cos_e(path)) == known["cos_e"]


def test_the_real_tasks(real_data):
    reasoning.register(str(real_data))
    tasks = registered.read_all()
    counts = {
        name.partition(".")[2]: {split: len(found) for split, found in splits.items()}
        for name, splits in tasks.items()
    }
    assert counts == {
        "aqua": {"train": 800, "validation": 254, "test": 254},
        # Of 500 explanations 24 are of questions that the 500 of CommonsenseQA here have.
        "cos_e": {"train": 24, "validation": 1221},
        "creak": {"train": 1000, "validation": 1371, "test": 500},
        "ecqa": {"train": 800},
        "gsm8k": {"train": 7473, "test": 1319},
        "gsm8k_socratic": {"test": 200},
        "qasc": {"train": 800},
        "qed": {"validation": 300},
        "sensemaking": {"train": 800},
        "strategyqa": {"train": 300, "validation": 229},
    }
    for name, splits in tasks.items():
        for split, examples in splits.items():
            for example in examples:
                answer = example.references[1]
                assert example.target.endswith(f"The answer is {answer}"), name
                assert "<<" not in example.target and (split != "train" or example.rationale)
    aqua = tasks["reasoning.aqua"]["train"][0]
    assert aqua.source.endswith("1/14?\n(A) 300, (B) 992, (C) 1120, (D) 552, (E) 312")
    assert aqua.references[1:] == ("1120", "(C)", "C")


def test_flans_files_alone_serve(real_data, tmp_path):
    shutil.copytree(real_data / "flan2022" / "cot_data", tmp_path / "flan2022" / "cot_data")
    reasoning.register(str(tmp_path))
    counts = {name: len(splits["train"]) for name, splits in registered.read_all().items()}
    assert (
        len(counts) == 7
        and sum(counts.values()) == registered.manifest(real_data, "flan2022")["chain-of-thought tsv"]
    )


def test_problems_without_reasoning_do_not_train(tmp_path):
    row = {"ex_id": "a", "sentence": "s", "label": "true", "explanation": "n/a"}
    write(
        tmp_path,
        "creak",
        {
            "train.json": lines(row, {**row, "ex_id": "b", "explanation": "why"}),
            "contrast_set.json": lines(row),
        },
    )
    reasoning.register(str(tmp_path))
    splits = registered.read("reasoning.creak")
    assert [example.uid for example in splits["train"]] == ["b"]
    assert [example.target for example in splits["test"]] == ["The answer is true"]


def test_problems_of_several_files_have_names_of_their_own(tmp_path):
    problem = json.dumps({"problem": "p", "solution": r"\boxed{1}"})
    write(tmp_path, "math", {"train/algebra/1.json": problem, "train/geometry/1.json": problem})
    reasoning.register(str(tmp_path))
    assert [e.uid for e in registered.read("reasoning.math")["train"]] == ["algebra-1-1", "geometry-1-1"]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so \boxed{3} or \boxed{a{b}c}", "a{b}c"),
        (r"$\fbox{2}$", "2"),
        (r"$\boxed 7$ it is", "7"),
        ("none", None),
        (r"\boxed{open", None),
        (r"\boxed", None),
    ],
)
def test_boxed_answers(solution, answer):
    assert more.boxed(solution) == answer


BAD = {
    "gsm8k": ("train.jsonl", lines({"question": "a", "answer": "2"}), r"train\.jsonl:1.*####"),
    "aqua": (
        "test.json",
        lines({"question": "q", "options": ["A)1"], "rationale": "r", "correct": "C"}),
        "letter 'C'",
    ),
    "strategyqa": ("dev.json", '[{"question": "q", "answer": "yes"}]', "true or false"),
    "creak": (
        "dev.json",
        lines({"sentence": "s", "label": True, "explanation": "e"}),
        r"dev\.json:1.*'label'",
    ),
    "cos_e": ("v1.11/cose_dev_v1.11.jsonl", lines({"id": "c1"}), "CommonsenseQA, whose files are not here"),
    "qasc": ("dev.jsonl", lines({**QUESTION, "fact1": "a"}), "'fact2'"),
    "qed": (
        "qed-dev.jsonlines",
        lines({**QED, "annotation": {}, "original_nq_answers": []}),
        "has no answer",
    ),
    "coqa": (
        "coqa-dev-v1.0.json",
        '{"data": [{"story": "s", "questions": [1], "answers": []}]}',
        "0 answers to 1",
    ),
    "esnli": ("esnli_test.csv", "pairID,gold_label\n1,x\n", "lacks the column 'Sentence1'"),
    "math": ("test.jsonl", lines({"problem": "p", "solution": "s"}), "boxed"),
    "proofwriter": (
        "meta-dev.jsonl",
        lines(
            {
                **PROOFWRITER,
                "questions": {"Q1": {"question": "q", "answer": True, "proofsWithIntermediates": [{}]}},
            }
        ),
        "Q1 has a proof",
    ),
    "sensemaking": ("dev.csv", "a,b\n1,2\n", "lacks the column"),
    "winowhy": ("winowhy.json", '[{"text": 1}]', "record 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_by_name(name, tmp_path):
    file, content, problem = BAD[name]
    write(tmp_path, name, {file: content})
    reasoning.register(str(tmp_path))
    with pytest.raises(InputError, match=problem) as caught:
        registered.read(f"reasoning.{name}")
    assert file in str(caught.value)


@pytest.mark.parametrize("content", ["", "\x00", '{"a": ', "[1, 2]", '{"a": 1}', '[{"a": [1]}]'])
def test_hostile_files_raise_nothing_else(content, tmp_path):
    for name, (files, *_) in SETS.items():
        write(tmp_path, name, dict.fromkeys(files, content))
    reasoning.register(str(tmp_path))
    for name in registry.names():
        for split in seqio_bridge.describe_source(name)[0]:
            with pytest.raises(InputError):
                list(seqio_bridge.read_fields(name, split))


def test_registration_needs_a_set(tmp_path):
    with pytest.raises(InputError, match=r"no chain-of-thought set.*data_dir"):
        reasoning.register(str(tmp_path))
