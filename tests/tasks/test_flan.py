"""FLAN 2021: rows on disk under plain templates, and what is said of bad rows and hostile templates."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib

import pytest

from iml.errors import InputError
from tasks import flan

_ROWS = [
    {"sentence1": "It rains {hypothesis}.", "sentence2": "The street is wet.", "label": 0},
    {"sentence1": "It is dry.", "sentence2": "It rains.", "label": 1},
    {"sentence1": "Who knows?", "sentence2": "It snows.", "label": -1},
]


def _examples(
    root: pathlib.Path, templates: str, rows: str | None = None, inverted: bool = False
) -> list[dict]:
    folder = root / "hf_raw" / "glue" / "rte"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in _ROWS) if rows is None else rows, encoding="utf-8"
    )
    (root / "flan").mkdir(exist_ok=True)
    (root / "flan" / "templates.yaml").write_text(templates, encoding="utf-8")
    (task,) = (one for one in flan.tasks(root, "", inverted) if one.name == "rte")
    task = dataclasses.replace(task, rows=flan.rows_of(root, task.definition))
    return list(task.read("train"))


_TWO = """
rte:
- {name: plain, source: "{premise} -> {hypothesis}"}
- {name: choices, source: "{premise}\\n{options_}", target: "It is {answer}."}
- {name: write, source: "{premise} {answer}", target: "{hypothesis}", inverted: true}
"""


def test_every_data_set_has_templates_whose_fields_it_has() -> None:
    for task in flan.tasks(pathlib.Path("nowhere"), "", inverted=True):
        task.check()
        assert task.card().category
        assert any(not template.inverted for template in task.templates)


def test_an_example_stands_under_each_template_and_inverted_ones_only_if_asked_for(tmp_path) -> None:
    plain, choices, *rest = _examples(tmp_path, _TWO)
    assert [example["uid"] for example in (plain, choices, *rest)] == ["train-1"] * 2 + ["train-2"] * 2
    # Braces within a row's text are text.
    assert plain["source"] == "It rains {hypothesis}. -> The street is wet."
    assert choices["source"] == "It rains {hypothesis}.\nOPTIONS:\n- yes\n- no"
    assert choices["target"] == "It is yes." and choices["candidates"] == ["It is yes.", "It is no."]
    inverted = _examples(tmp_path, _TWO, inverted=True)
    assert len(inverted) == 6
    assert inverted[2]["target"] == "The street is wet." and inverted[2]["candidates"] == []


@pytest.mark.parametrize(
    "hole", ["other", "premise.__class__", "premise[0]", "premise!r", "premise:>99", "0", "", " premise "]
)
def test_a_template_reaches_fields_only(tmp_path, hole: str) -> None:
    with pytest.raises(InputError, match=r"templates\.yaml.*template 'one' of rte has an unknown field"):
        _examples(tmp_path, f'rte:\n- {{name: one, source: "{{{hole}}}"}}\n')


@pytest.mark.parametrize(
    ("templates", "told"),
    [
        ("", "must be a mapping"),
        ("rte: [\n", "not YAML"),
        ("rte: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ('nothing:\n- {name: a, source: "x"}\n', "no such data set"),
        ('rte:\n- {name: a, source: "x", inverted: true}\n', "inverted templates only"),
        ('rte:\n- {name: a, source: "x", target: "y"}\n', "does not hold {answer}"),
    ],
)
def test_a_bad_file_of_templates_is_told(tmp_path, templates: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        _examples(tmp_path, templates)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("", "holds no example"),
        ('{"sentence1": "a"', "train.jsonl:1"),
        ("[1]\n", "train.jsonl:1"),
        ('{"sentence1": "a", "label": 0}\n', "row 1"),
        ('{"sentence1": "a", "sentence2": "b", "label": 7}\n', "row 1"),
    ],
)
def test_bad_rows_are_told_with_their_place(tmp_path, rows: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        _examples(tmp_path, _TWO, rows)


def test_a_folder_without_rows_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no data set of FLAN has rows here"):
        flan.register(str(tmp_path))


def test_all_rows_of_the_real_data_are_read(real_data) -> None:
    """The manifest counts hf_raw as one group, data sets that are not FLAN's included; so rows are counted."""
    sets = 0
    for task in flan.tasks(real_data, "", inverted=False):
        rows = flan.rows_of(real_data, task.definition)
        task = dataclasses.replace(task, rows=rows)
        for split, held in rows.items():
            if not all("hf_raw" in path.parts for path in held.paths):
                continue
            examples = list(task.read(split))
            lines = sum(len(gzip.decompress(path.read_bytes()).splitlines()) for path in held.paths)
            assert len(examples) == lines * len(task.templates), (task.name, split)
            assert len({example["uid"] for example in examples}) == lines, (task.name, split)
            assert all(
                not example["candidates"] or example["target"] in example["candidates"]
                for example in examples
            )
            sets += 1
    assert sets == 14
