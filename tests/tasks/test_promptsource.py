"""PromptSource's tasks as `iml.prepare` sees them, from small folders and from the genuine templates."""

import gzip
import json
import subprocess
import sys
import textwrap

import pytest

seqio = pytest.importorskip("seqio")

from iml import seqio_bridge  # noqa: E402
from iml.bench import registry  # noqa: E402
from iml.bench.card import Example  # noqa: E402
from iml.bench.categories import categories  # noqa: E402
from iml.errors import InputError  # noqa: E402
from tasks import promptsource  # noqa: E402
from tasks.promptsource import from_validation  # noqa: E402

COPA = """\
    dataset: super_glue
    subset: copa
    templates:
      t-1: !Template
        answer_choices: '{{ choice1 }} ||| {{ choice2 }}'
        id: t-1
        jinja: '{{ premise }} This {{ question }}?|||{% if label != -1 %}{{ answer_choices[label] }}{% endif %}'
        metadata: !TemplateMetadata
          choices_in_prompt: false
          metrics: [Accuracy]
          original_task: true
        name: plain
        reference: ''
      t-2: !Template
        answer_choices: null
        id: t-2
        jinja: '{% if question == "cause" %}Why? {{ premise }}|||{{ choice1 }}{% endif %}'
        metadata: !TemplateMetadata
          choices_in_prompt: false
          metrics: [BLEU, ROUGE]
          original_task: true
        name: causes only
        reference: ''
      t-3: !Template
        answer_choices: null
        id: t-3
        jinja: '{{ choice1 }}|||{{ premise }}'
        metadata: !TemplateMetadata {original_task: false, choices_in_prompt: null, metrics: null}
        name: backwards
        reference: ''
"""


def row(number: int, question: str, label: int) -> dict:
    return {
        "premise": f"p{number} a|||b",
        "choice1": f"one {number}",
        "choice2": f"two {number}",
        "question": question,
        "label": label,
    }


ROWS = [row(0, "cause", 0), row(1, "effect", 1), row(2, "cause", -1), row(3, "cause", 1)]


@pytest.fixture
def register():
    """Registers a folder's tasks and gives their names; forgets them afterwards."""
    before = set(registry.names())
    yield lambda data_dir, **options: (
        promptsource.register(str(data_dir), **options),
        [name for name in registry.names() if name not in before],
    )[1]
    for name in set(registry.names()) - before:
        seqio_bridge.remove_task(name)


def make_data(home, templates: str = COPA, folder: str = "super_glue/copa", **splits):
    """A data folder with one file of templates, and rows by split (dicts, or the bytes of the file)."""
    path = home / "promptsource" / "templates" / folder / "templates.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(textwrap.dedent(templates), encoding="utf-8")
    rows = home / "hf_raw" / folder
    rows.mkdir(parents=True)
    for split, content in splits.items():
        if not isinstance(content, bytes):
            content = b"".join(json.dumps(record).encode() + b"\n" for record in content)
        (rows / f"{split}.jsonl").write_bytes(content)
    return home


def read(name: str, split: str) -> list[Example]:
    return [Example.from_json(fields) for fields in seqio_bridge.read_fields(name, split)]


def test_rows_are_examples_times_the_templates_that_apply(tmp_path, register):
    (name,) = register(make_data(tmp_path, train=ROWS))
    assert name == "promptsource.super_glue_copa"
    examples = read(name, "train")
    # Row 2 hides its label; the second template has nothing to say of effects, the third is another task.
    assert [(example.uid, example.template) for example in examples] == [
        ("train-0", "t-1 plain"),
        ("train-0", "t-2 causes only"),
        ("train-1", "t-1 plain"),
        ("train-3", "t-1 plain"),
        ("train-3", "t-2 causes only"),
    ]
    assert examples[2] == Example(
        uid="train-1",
        source="p1 a|||b This effect?",
        target="two 1",
        references=("two 1",),
        candidates=("one 1", "two 1"),
        template="t-1 plain",
    )
    assert examples[1].candidates == ()
    card = registry.card(name)
    assert (card.category, card.metrics) == ("Cause Effect Classification", ("accuracy", "rouge_l", "bleu"))


def test_evaluation_ignores_templates_that_do_not_apply_to_all_examples(tmp_path, register):
    (name,) = register(make_data(tmp_path, validation=ROWS))
    assert {example.template for example in read(name, "validation")} == {"t-1 plain"}


def test_turk_keeps_templates_that_do_not_apply_to_all_examples(tmp_path, register):
    make_data(tmp_path, folder="turk")
    rows = tmp_path / "hf_raw" / "turk" / "none"
    rows.mkdir()
    with gzip.open(rows / "test.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in ROWS)
    (name,) = register(tmp_path)
    assert {example.template for example in read(name, "test")} == {"t-1 plain", "t-2 causes only"}


def test_templates_for_other_tasks_come_on_request_and_the_card_says_so(tmp_path, register):
    (name,) = register(make_data(tmp_path, train=ROWS), original_task_only=False)
    assert "t-3 backwards" in {example.template for example in read(name, "train")}
    assert registry.card(name).source == "super_glue/copa (templates for other tasks too)"


def test_a_train_split_is_taken_from_validation_only_on_request(tmp_path, register):
    rows = [row(number, "cause", 0) for number in range(200)]
    make_data(tmp_path, validation=rows)
    (name,) = register(tmp_path)
    assert seqio.TaskRegistry.get(name).splits == ("validation",)
    whole = {example.uid for example in read(name, "validation")}
    seqio_bridge.remove_task(name)

    from_validation.register(str(tmp_path))
    train = {example.uid for example in read(name, "train")}
    rest = {example.uid for example in read(name, "validation")}
    assert train | rest == whole and not train & rest
    assert 0.7 < len(train) / len(whole) < 0.9
    assert "80% of the validation split is the train split" in registry.card(name).source


def test_data_sets_without_rows_have_no_task(tmp_path, register):
    assert register(make_data(tmp_path)) == []
    with pytest.raises(InputError, match=r"promptsource/templates: no templates here"):
        register(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("dataset: super_glue", "dataset: !!python/object/apply:os.system [id]", 1, "could not determine"),
        (
            "!Template\n    answer_choices: null",
            "!Other\n    answer_choices: null",
            14,
            "could not determine",
        ),
        ("subset: copa", "subset: [copa", 3, ""),
        ("    name: plain\n", "", 4, "'name'"),
        (
            "    metadata: !TemplateMetadata\n      choices_in_prompt: false\n",
            "    other:\n",
            4,
            "'metadata'",
        ),
        ("original_task: true", "original_task: maybe", 4, "'original_task'"),
        ("    jinja: '{{ premise }}", "    jinja: ['{{ premise }}", 8, ""),
        ("templates:\n", "template:\n", None, "'templates'"),
    ],
)
def test_bad_templates_are_told_of_with_file_and_line(tmp_path, register, old, new, line, told):
    templates = textwrap.dedent(COPA)
    assert old in templates
    (name,) = register(make_data(tmp_path, templates.replace(old, new, 1), train=ROWS))
    with pytest.raises(InputError) as caught:
        read(name, "train")
    assert caught.value.path.endswith("templates/super_glue/copa/templates.yaml")
    assert caught.value.line == line
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b'{"premise": "\xff"}\n', "not UTF-8"),
        (b'{"premise": \n', "not JSON"),
        (b"[1, 2]\n", "not a JSON object"),
        (b"[" * 100_000 + b"\n", "nested too deeply"),
    ],
)
def test_bad_rows_are_told_of_with_file_and_line(tmp_path, register, bad, told):
    content = json.dumps(ROWS[0]).encode() + b"\n\n" + bad
    (name,) = register(make_data(tmp_path, train=content))
    with pytest.raises(InputError, match=told) as caught:
        read(name, "train")
    assert str(caught.value).startswith(f"{tmp_path / 'hf_raw/super_glue/copa/train.jsonl'}:3: ")


def test_a_template_that_fails_is_told_of_with_its_name_and_the_example(tmp_path, register):
    rows = [ROWS[0], {**ROWS[1], "label": 7}]
    (name,) = register(make_data(tmp_path, templates=COPA.replace("[label]", "[label].x.y"), train=rows))
    with pytest.raises(InputError, match=r"template t-1 \(plain\) on train-0: the template fails"):
        read(name, "train")


def test_cut_gzip_is_told_of(tmp_path, register):
    make_data(tmp_path)
    whole = gzip.compress(b"".join(json.dumps(record).encode() + b"\n" for record in ROWS * 100))
    (tmp_path / "hf_raw/super_glue/copa/train.jsonl.gz").write_bytes(whole[:-30])
    (name,) = register(tmp_path)
    with pytest.raises(InputError, match=r"train\.jsonl\.gz:\d+: cannot be read"):
        read(name, "train")


def test_rendering_does_not_depend_on_the_process_nor_on_order(tmp_path, register):
    templates = COPA.replace("|||{{ choice1 }}", "|||{{ [choice1, choice2, premise] | choice }}")
    make_data(tmp_path, templates, train=[row(number, "cause", 0) for number in range(20)])
    (name,) = register(tmp_path)
    here = [example.target for example in read(name, "train")]
    script = (
        "import sys, json; from iml import seqio_bridge; from tasks import promptsource\n"
        "promptsource.register(sys.argv[1])\n"
        "print(json.dumps([f['target'] for f in seqio_bridge.read_fields(sys.argv[2], 'train')]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path), name]
    there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert here == there == [example.target for example in read(name, "train")]
    assert len({target.split()[0] for target in here}) > 2  # the choice does vary


def test_every_genuine_task_can_be_read(real_data, register):
    names = register(real_data)
    assert len(names) >= 26
    for name in names:
        task = seqio.TaskRegistry.get(name)
        assert registry.card(name).category in categories()
        for split in task.splits:
            examples = read(name, split)
            assert examples
            assert all(example.source and example.target for example in examples)
            assert len({(example.uid, example.template) for example in examples}) == len(examples)


def test_the_paper_s_copa_prompt(real_data, register):
    register(real_data)
    examples = read("promptsource.super_glue_copa", "validation")
    assert all(example.candidates and example.target in example.candidates for example in examples)
    exercise = [example for example in examples if example.source.startswith("Exercise: choose the most")]
    assert len(exercise) == 100


def test_every_genuine_template_folder_has_a_category(real_data):
    home = real_data / "promptsource" / "templates"
    folders = [path.parent.relative_to(home).as_posix() for path in home.rglob("templates.yaml")]
    assert len(folders) == 267
    assert {promptsource.category(folder) for folder in folders} <= set(categories())
