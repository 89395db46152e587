"""The shared readers on good files, and on bad ones: each error names file and line."""

import gzip

import pytest

from iml.errors import InputError
from tasks import files


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_keep_their_numbers(tmp_path):
    path = write(tmp_path / "a.tsv", "\ufeffa\tb\r\n\n \nc\u2028d\te\tf\n")
    assert list(files.lines(path)) == [(1, "a\tb"), (4, "c\u2028d\te\tf")]
    assert list(files.columns(path, 2)) == [(1, ["a", "b"]), (4, ["c\u2028d", "e", "f"])]


def test_packed_files_read_as_plain_ones(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"x": 1}\n{"x": 2}\n'))
    assert list(files.json_lines(path)) == [(1, {"x": 1}), (2, {"x": 2})]


def test_quoted_fields_hold_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", 'x,y\n"1\n2",3\n4,5\n')
    assert list(files.table(path)) == [(3, {"x": "1\n2", "y": "3"}), (4, {"x": "4", "y": "5"})]
    assert next(files.table(path, ["p", "q"])) == (1, {"p": "x", "q": "y"})


@pytest.mark.parametrize(
    ("name", "content", "read", "said"),
    [
        ("a", b"ok\n\xff\n", files.lines, "a:2: is not UTF-8 at byte 0"),
        ("a.gz", b"not packed", files.lines, "a.gz:1: cannot be read"),
        ("a.gz", gzip.compress(b"cut off" * 99)[:30], files.text, "a.gz: cannot be read"),
        ("a", b'{"x": 1}\n[1]\n', files.json_lines, "a:2: is not a JSON object"),
        ("a", b'{"x": 1}\n{"x"\n', files.json_lines, "a:2: is not JSON"),
        ("a", b"", files.json_value, "a:1: is empty"),
        ("a", b'{"x": 1}', files.json_records, "a: must hold a JSON list"),
        ("a", b"[" * 100_000, files.json_value, "nested too deeply"),
        ("a", b"a\tb\nc\n", lambda path: files.columns(path, 2), "a:2: has 1 of 2 columns"),
        ("a", b"x,y\n1,2\n1,2,3\n", files.table, "a:3: has not 2 columns"),
        ("a", b"x,y\n1\n", files.table, "a:2: has not 2 columns"),
        (
            "a",
            b'x,y\n1,2\n3,"4\n5,6\n7,8\n',
            files.table,
            "a:3: the row that begins here has quotes that do not end",
        ),
        ("a", b'x,y\n1,2\n"3,4\n5,6\n', files.table, "a:3: the row that begins here has quotes"),
        ("a", b'x,"y\n1,2\n', files.table, "a:1: the row that begins here has quotes"),
    ],
)
def test_bad_files_are_told_of_with_their_line(tmp_path, name, content, read, said):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        found = read(path)
        list(found)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("record", "kind", "said"),
    [
        ({}, str, "lacks this field"),
        ([], str, "lacks this field"),
        ({"x": 1}, str, "must be a string, not 1"),
        ({"x": True}, int, "must be a whole number"),
        ({"x": "1"}, (int, float), "must be a whole number or a number"),
    ],
)
def test_fields_are_checked(record, kind, said):
    with pytest.raises(InputError, match=said) as error:
        files.field(record, "x", kind, "a.json", 7)
    assert "a.json:7, field 'x'" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        files.text(tmp_path / "none")
