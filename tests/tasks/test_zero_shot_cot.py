"""Sets that evaluate reasoning: every genuine file, their prompts, their answers, and bad files."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.bench.levels import load_split_scheme
from iml.errors import InputError
from iml.evaluation.metrics import final_answer
from tasks import zero_shot_cot
from tests.tasks.evaluation_only import empty_registries, manifest, read, splits  # noqa: F401


def write(tmp_path, path, content):
    file = tmp_path / "reasoning" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def test_every_genuine_file_is_read(real_data):
    zero_shot_cot.register(str(real_data))
    groups = {group["group"]: group["examples"] for group in manifest(real_data, "reasoning")}
    counts = {}
    for name in registry.names():
        assert set(splits(name)) <= {"exemplars", "test"}
        assert load_split_scheme("opt_iml").level(registry.card(name)) == "partially_held_out"
        for split in splits(name):
            examples = read(name, split)
            counts[name] = counts.get(name, 0) + len(examples)
            for example in examples:
                assert (
                    "reasoning step by step" in example.instruction
                    and example.source
                    and not example.rationale
                )
                assert final_answer(f"Well. So the answer is {example.references[1]}.",
                                               example.references) == 100.0  # fmt: skip
                assert final_answer("The answer is something else.", example.references) == 0.0
    assert len(counts) == len(zero_shot_cot.definitions())
    assert counts["zero_shot_cot.svamp"] + counts["zero_shot_cot.mawps_asdiv_a"] == groups["svamp"]
    assert counts["zero_shot_cot.asdiv"] == groups["asdiv"]
    assert counts["zero_shot_cot.csqa2"] == groups["csqa2"]
    names = ("commonsense_qa", "add_sub", "multi_arith", "single_eq", "date_understanding", "object_tracking",
             "strategyqa", "coin_flip", "last_letters")  # fmt: skip
    assert sum(counts[f"zero_shot_cot.{name}"] for name in names) == groups["zero_shot_cot datasets"]


def test_problems_are_put_together(tmp_path):
    write(tmp_path, "svamp/SVAMP.json", [{"ID": "a", "Body": "Ann has 2", "Question": "And?", "Answer": 2.0}])
    write(
        tmp_path,
        "svamp/mawps-asdiv-a_svamp/dev.csv",
        "Question,Numbers,Answer\nnumber1 and number0 ?,5 7,12.5\n",
    )
    write(
        tmp_path,
        "asdiv/ASDiv.xml",
        '<a><Problem ID="x"><Body>B.</Body><Question>Q?</Question><Answer>1,200 (cm)</Answer></Problem></a>',
    )
    choices = [{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}]
    write(
        tmp_path,
        "CommonsenseQA/dev_rand_split.jsonl",
        {"id": "q", "answerKey": "B", "question": {"stem": "Where?", "choices": choices}},
    )
    zero_shot_cot.register(str(tmp_path))
    found = {name.partition(".")[2]: read(name, "test")[0] for name in registry.names()}
    assert {name: (example.source, example.references[1:]) for name, example in found.items()} == {
        "svamp": ("Ann has 2. And?", ("2",)),
        "mawps_asdiv_a": ("7 and 5 ?", ("12.5",)),
        "asdiv": ("B. Q?", ("1,200", *found["asdiv"].references[2:])),
        "commonsense_qa": ("Where?\n(A) bank, (B) mall", ("mall", "(B)")),
    }
    assert set(found["asdiv"].references[2:]) == {"1200", "1,200 (cm)"}
    assert found["svamp"].target == "The answer is 2"


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("svamp/SVAMP.json", [{"ID": "a", "Body": "b", "Question": "q", "Answer": "2"}], "field 'Answer'"),
        ("svamp/mawps-asdiv-a_svamp/dev.csv", "Question,Numbers,Answer\nnumber1 ?,5,1\n", "csv:2.*'Numbers'"),
        ("asdiv/ASDiv.xml", "<a><Problem></a>", "xml:1.*not XML"),
        ("asdiv/ASDiv.xml", "<a><Problem><Question>q</Question></Problem></a>", "problem 1 lacks"),
        ("zero_shot_cot/AddSub/AddSub.json", [{"sQuestion": "q", "lSolutions": []}], "not one solution"),
        ("zero_shot_cot/AddSub/AddSub.json", [{"sQuestion": "q", "lSolutions": ["x"]}], "must be a number"),
        (
            "zero_shot_cot/Bigbench_Date/task.json",
            {"examples": [{"input": "q", "target_scores": {"a": 1, "b": 1}}]},
            "2 right",
        ),
        (
            "CommonsenseQA/dev_rand_split.jsonl",
            {"id": "q", "answerKey": "C", "question": {"stem": "s", "choices": []}},
            "jsonl:1.*'answerKey'",
        ),
    ],
)
def test_a_bad_file_is_told(tmp_path, path, content, told):
    write(tmp_path, path, content)
    zero_shot_cot.register(str(tmp_path))
    with pytest.raises(InputError, match=told):
        read(registry.names()[0], "test")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="reasoning/svamp"):
        zero_shot_cot.register(str(tmp_path))
