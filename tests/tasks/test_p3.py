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
    lines = [line for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]
    empty = sum(json.loads(line)["completion"] == "<|endoftext|>" for line in lines)
    assert 0 < empty < len(lines) / 20
    assert len(rows) + empty == sum(registered.manifest(real_data, "p3_rendered").values())
    files = {path.name.partition(".")[0] for path in paths}
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
