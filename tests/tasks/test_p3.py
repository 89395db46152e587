"""Rendered prompts of P3: every real file, and bad ones."""

import gzip
import json

import pytest

pytest.importorskip("seqio")

from iml.bench import registry
from iml.errors import InputError
from tasks.promptsource import rendered
from tests.tasks import registered


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def test_every_real_file_is_read(real_data):
    rendered.register(str(real_data))
    tasks = registered.read_all()
    rows = [example for splits in tasks.values() for example in splits["train"]]
    paths = sorted((real_data / "p3_rendered").glob("*.jsonl.gz"))
    lines = {path.name.partition(".")[0]: gzip.decompress(path.read_bytes()).splitlines() for path in paths}
    answered = {
        name: [line for line in of if json.loads(line)["completion"] != "<|endoftext|>"]
        for name, of in lines.items()
    }
    # All of TREC's completions are empty, and no other's.
    assert {name for name in lines if lines[name] != answered[name]} == {
        name for name in lines if name.startswith("trec_") and not answered[name]
    }
    assert len(rows) == sum(map(len, answered.values()))
    assert sum(map(len, lines.values())) == sum(registered.manifest(real_data, "p3_rendered").values())
    files = {name for name in lines if answered[name]}
    found = {
        f"{registry.card(name).source.replace('/', '_')}_{example.template}"
        for name, splits in tasks.items()
        for example in splits["train"]
    }
    assert found == files
    assert not any("endoftext" in example.target or example.source.endswith("\n") for example in rows)
    assert registry.card("promptsource.glue_mrpc_p3").category == "Text Matching"


def write(folder, name, *rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "field 'completion'"),
        (["a", "b"], "is not a JSON object"),
        ({"prompt": 1, "completion": "b"}, "must be a string"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, said):
    write(tmp_path, "imdb_good", {"prompt": "a\n", "completion": "b<|endoftext|>"}, row)
    rendered.register(str(tmp_path))
    with pytest.raises(InputError, match=r"imdb_good\.jsonl:2") as error:
        registered.read_all()
    assert said in str(error.value)


def test_names_that_are_not_known_are_refused(tmp_path):
    with pytest.raises(InputError, match="no rendered prompts"):
        rendered.register(str(tmp_path))
    write(tmp_path, "nobody_knows", {"prompt": "a", "completion": "b"})
    with pytest.raises(InputError, match="no known data set"):
        rendered.register(str(tmp_path))
