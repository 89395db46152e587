"""Natural Instructions' first schema and the drafts of 2021: every real file is read; bad ones are told by name."""

import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.errors import InputError
from tasks import natural_instructions_v1 as v1
from tasks import super_natural_instructions as super_ni
from tests.tasks import registered

RECORD = {
    "Title": "Naming",
    "Prompt": "Name it.",
    "Definition": " Give a name. ",
    "Things to Avoid": "-",
    "Emphasis & Caution": "Be brief.",
    "Examples": {"Positive Examples": [], "Negative Examples": []},
    "Instances": [{"input": f"in {number}", "output": ["a", "b"]} for number in range(20)],
}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    super_ni._load.cache_clear()
    yield
    registered.clear()


def write(tmp_path, content, folder="natural_instructions_v1/tasks", name="subtask004_own_naming"):
    path = tmp_path / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_every_real_file_is_read_and_its_examples_counted(real_data):
    v1.register(str(real_data))
    tasks = registered.read_all()
    known = registered.manifest(real_data, "natural_instructions_v1")
    drafts = registered.manifest(real_data, "super_natural_instructions")["2021 contributor drafts"]
    for prefix, files, examples in (("v1_", 48, known["tasks"]), ("drafts_2021_", 24, drafts)):
        found = [splits for name, splits in tasks.items() if name.startswith(f"{v1.BENCHMARK}.{prefix}")]
        assert len(found) == files
        assert sum(len(split) for splits in found for split in splits.values()) == examples
        assert all(splits["train"] and splits["validation"] for splits in found)
    for name, splits in tasks.items():
        assert all(example.instruction and example.target for found in splits.values() for example in found)
        assert registry.card(name).benchmark == "super_natural_instructions"
    # What is held out in v2 is held out here.
    prefix = f"{v1.BENCHMARK}.drafts_2021_"
    assert registry.card(f"{prefix}task320_stereoset_classification_race").category == "Stereotype Detection"


def test_a_tasks_category_is_v2s(real_data):
    v1.register(str(real_data))
    old = {name: registry.card(name).category for name in registry.names()}
    registered.clear()
    super_ni.register(str(real_data))
    new = {name.split(".")[1].split("_")[0]: registry.card(name).category for name in registry.names()}
    same = [
        (category, new[number])
        for name, category in old.items()
        if (number := name.split(".")[1].removeprefix("v1_sub").removeprefix("drafts_2021_").split("_")[0])
        in new
    ]
    assert len(same) > 60 and all(category == other for category, other in same)


def test_the_instruction_has_the_parts_that_are_asked_for(tmp_path):
    write(tmp_path, RECORD)
    v1.register(str(tmp_path))
    name = f"{v1.BENCHMARK}.v1_subtask004_own_naming"
    [first, *_] = registered.read(name)["train"]
    assert (first.instruction, first.references) == ("Give a name.", ("a", "b"))
    assert registry.card(name).category == "Question Answering"
    registered.clear()
    v1.register(str(tmp_path), parts=("Definition", "Things to Avoid", "Emphasis & Caution", "Prompt"))
    assert registered.read(name)["train"][0].instruction == "Give a name.\nBe brief.\nName it."
    with pytest.raises(InputError, match="unknown part 'Definitions'"):
        v1.register(str(tmp_path), parts=("Definitions",))


def test_a_draft_of_a_task_that_v2_lacks_keeps_its_category(tmp_path):
    folder = "super_natural_instructions/drafts_2021"
    write(tmp_path, {**RECORD, "Categories": ["Question Answering"]}, folder, "task9999_own")
    write(tmp_path, RECORD, folder, "task9998_own")
    v1.register(str(tmp_path))
    assert [registry.card(name).category for name in sorted(registry.names())] == [
        "Misc.",
        "Question Answering",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        ("[1]", "must be a JSON object"),
        ({**RECORD, "Definition": 3}, "'Definition'"),
        ({**RECORD, "Definition": " - "}, "has no instruction"),
        ({**RECORD, "Instances": []}, "at least one instance"),
        ({**RECORD, "Instances": [{"input": "a", "output": [1]}]}, "Instances\\[0\\].output"),
    ],
)
def test_a_bad_file_is_told_by_name(content, problem, tmp_path):
    write(tmp_path, content)
    v1.register(str(tmp_path))
    with pytest.raises(InputError, match=problem) as caught:
        registered.read(f"{v1.BENCHMARK}.v1_subtask004_own_naming")
    assert "subtask004_own_naming.json" in str(caught.value)


def test_registration_needs_files(tmp_path):
    with pytest.raises(InputError, match="no task files"):
        v1.register(str(tmp_path))
