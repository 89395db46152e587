"""BIG-Bench Hard: every genuine file, its prompts with and without reasoning, and how answers are compared."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.data.prompts import PromptFormat, render_request
from iml.errors import InputError
from iml.evaluation.metrics import final_answer
from tasks import bbh
from tests.stores import make_store
from tests.tasks.evaluation_only import empty_registries, lm_eval_tasks, manifest, read, splits  # noqa: F401

AS_WRITTEN = PromptFormat(separator="\n\n", delimiters=[""], definition_prefixes=[""], input_prefixes=[""])
PROMPT = (
    "canary\n-----\nAdd.\n\nQ: 1+1\n\nis\nA: Let's think step by step.\nOne and one. So the answer is 2.\n"
)


def write(tmp_path, task, prompt=None):
    for folder, name, content in (("bbh", "add.json", task), ("cot-prompts", "add.txt", prompt)):
        if content is not None:
            path = tmp_path / "bbh" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path if prompt is not None else tmp_path / "bbh" / "bbh" / "add.json"


def test_every_genuine_file_is_read(real_data):
    bbh.register(str(real_data))
    [group] = manifest(real_data, "bbh")
    names = [name for name in registry.names() if not name.endswith("_cot")]
    assert len(names) == group["tasks"] and len(registry.names()) == 2 * len(names)
    total = 0
    for name in names:
        rows = json.loads((real_data / "bbh" / "bbh" / f"{name[4:]}.json").read_text())["examples"]
        for task in (name, f"{name}_cot"):
            assert splits(task) == ("exemplars", "test")
            test, exemplars = read(task, "test"), read(task, "exemplars")
            assert [example.target for example in test] == [row["target"] for row in rows]
            assert len(exemplars) == 3 and not any(example.candidates for example in test)
        total += len(rows)
    assert total == group["examples"]
    parents = {registry.card(name).parent or name for name in names}
    assert len(parents) == 22 and {"logical_deduction", "tracking_shuffled_objects"} < parents


def test_prompts_are_those_of_the_benchmark(real_data, tmp_path):
    bbh.register(str(real_data))
    for task in ("snarks", "penguins_in_a_table", "word_sorting"):
        written = (real_data / "bbh" / "cot-prompts" / f"{task}.txt").read_text().partition("-----\n")[2]
        for name in (f"bbh.{task}", f"bbh.{task}_cot"):
            store = make_store(
                tmp_path / name,
                {name: {"card": registry.card(name).to_json(), **{s: read(name, s) for s in splits(name)}}},
            )
            example = store.read(name, "test", 0)
            prompt = render_request(store, name, "test", 0, AS_WRITTEN, shots=3, seed=5)
            assert prompt.provenance["shots"] == 3
            if name.endswith("_cot"):
                # The text after the cue follows a space, in this engine, and a line break in the file.
                shown = written.strip().replace("step by step.\n", "step by step. ")
                assert prompt.source == f"{shown}\n\n{example.source}"
                assert example.source.endswith("\nA: Let's think step by step.")
            else:
                assert "step by step" not in prompt.source and prompt.source.endswith("\nA:")
            bare = render_request(store, name, "test", 0, AS_WRITTEN, shots=0, seed=5)
            assert prompt.source.startswith(bare.source.removesuffix(example.source))


def test_exemplars_are_those_of_lm_evaluation_harness(real_data):
    yaml, home = pytest.importorskip("yaml"), lm_eval_tasks() / "bbh" / "cot_fewshot"
    for path in sorted((real_data / "bbh" / "cot-prompts").glob("*.txt")):
        instruction, exemplars = bbh.read_prompt(str(path))
        peer = yaml.safe_load((home / f"{path.stem}.yaml").read_text().replace("!function", ""))
        assert instruction == peer["description"].strip()
        samples = peer["fewshot_config"]["samples"]
        assert [shown["question"] for shown in exemplars] == [sample["input"].strip() for sample in samples]
        assert [shown["rationale"].split() for shown in exemplars] == [s["target"].split() for s in samples]


def test_reasoning_is_scored_by_its_answer(real_data):
    score = final_answer
    bbh.register(str(real_data))
    for path in sorted((real_data / "bbh" / "cot-prompts").glob("*.txt")):
        _, exemplars = bbh.read_prompt(str(path))
        answers = {shown["answer"] for shown in exemplars}
        for shown in exemplars:
            for text in (shown["rationale"], shown["answer"], f"{shown['answer']}\n\nQ: and?\nA: {answers}"):
                assert score(text, [shown["answer"]]) == 100.0, (path.stem, text)
                assert not any(score(text, [other]) for other in answers - {shown["answer"]})


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        (" (B)", "(B)", True),
        ("B", "(B)", True),
        ("B. blue", "(B)", True),
        ("(b) blue", "(B)", True),
        ("The answer is: (B) blue. (C) is not.", "(B)", True),
        ("By chance it is (C). So the answer is (B).", "(C)", False),
        ("Blue", "(B)", False),
        ("] )", "] )", True),
        ("] ]", "] )", False),
        ("", "] )", False),
        ("so the answer is yes.\n\nQ: next?\nA: So the answer is no.", "Yes", True),
        ('"ant, bee"', "ant bee", True),
        ("The answer is 3.5.", "3.5", True),
        ("-3", "3", False),
        ("The answer is $1,000.", "1000", True),
        ("3 * 6 = 18 days", "18", True),
        ("The answer is 18.00 dollars.", "18", True),
        ("eighteen", "18", False),
        ("18.5", "18", False),
        ("The answer is 18", "16 - 3 - 4 = 9, and 9 * 2 = 18. The answer is 18.", True),
        ("9. The answer is 9", "16 - 3 - 4 = 9, and 9 * 2 = 18. The answer is 18.", False),
    ],
)
def test_final_answer(prediction, reference, right):
    assert final_answer(prediction, [reference]) == 100.0 * right


def test_a_task_without_a_prompt_file_has_no_exemplars(tmp_path):
    write(tmp_path, {"canary": "", "examples": [{"input": "1+1", "target": "2"}]})
    bbh.register(str(tmp_path))
    assert list(registry.names()) == ["bbh.add"] and splits("bbh.add") == ("test",)
    [example] = read("bbh.add", "test")
    assert (example.instruction, example.source, example.target) == ("", "Q: 1+1\nA:", "2")


@pytest.mark.parametrize(
    ("task", "prompt", "told"),
    [
        ({"examples": [{"input": "1+1"}]}, PROMPT, "add.json.*'target'"),
        ({"rows": []}, PROMPT, "add.json.*'examples'"),
        ("{", PROMPT, "add.json:1.*not JSON"),
        ({"examples": []}, PROMPT.replace("So the answer", "The answer"), "add.txt.*no prompt"),
        ({"examples": []}, PROMPT.replace("-----", ""), "add.txt.*no prompt"),
    ],
)
def test_a_bad_file_is_told(tmp_path, task, prompt, told):
    write(tmp_path, task, prompt)
    bbh.register(str(tmp_path))
    with pytest.raises(InputError, match=told):
        read("bbh.add_cot", "test")


def test_a_question_may_hold_blank_lines(tmp_path):
    path = write(tmp_path, {"examples": []}, PROMPT)
    assert bbh.read_prompt(str(path)) == (
        "Add.",
        [{"question": "1+1\n\nis", "rationale": "\nOne and one. So the answer is 2.", "answer": "2"}],
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"bbh/bbh.*Copy"):
        bbh.register(str(tmp_path))
