"""The command of the task browser."""

import signal
import subprocess
import sys
import urllib.request

import pytest

from iml.browse import browse
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store


@pytest.fixture
def folders(tmp_path):
    rows = [(f"What is {i}?", f"It is {i}") for i in range(9)]
    store = make_store(tmp_path, {"flan.sums": {"train": rows, "test": rows}})
    return str(store.path), write_vocabulary(tmp_path / "vocabulary").directory


def test_it_exports_without_jax_and_tensorflow(folders, tmp_path):
    program = (
        "import runpy, sys; sys.argv[0] = 'iml.browse'; runpy.run_module('iml.browse', run_name='__main__'); "
        "assert not {'jax', 'tensorflow', 'seqio', 'flax'} & set(sys.modules)"
    )
    flags = [
        f"--gin.browse.store_dir={folders[0]}",
        f"--gin.browse.vocabulary_dir={folders[1]}",
        "--gin.browse.stream=@Stream()",
        "--gin.Stream.length=64",
        f"--export={tmp_path / 'pages'}",
    ]
    made = subprocess.run(
        [sys.executable, "-c", program, *flags], capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    assert "1 task of 1 family in 1 category" in made.stdout
    assert "of 64 positions" in (tmp_path / "pages" / "packing.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"host": "0.0.0.0"}, "this machine alone"),
        ({"shots": ()}, "at least 0"),
        ({"shots": (0, -1)}, "at least 0"),
        ({"instances": 0}, "at least 1"),
        ({"split_scheme": "none"}, "no split scheme"),
        ({"vocabulary_dir": "/nowhere"}, "no vocabulary"),
        ({"export": True}, "needs a folder"),
        ({"port": 70000}, "cannot listen"),
    ],
)
def test_mistakes_are_told_at_once(folders, settings, problem):
    with pytest.raises(InputError, match=problem):
        browse(**{"store_dir": folders[0], "vocabulary_dir": folders[1]} | settings)


def test_a_dry_run_says_what_there_is_and_writes_nothing(folders, tmp_path, capsys):
    browse(*folders, export=str(tmp_path / "pages"), dry_run=True)
    assert "1 task of 1 family" in capsys.readouterr().out and not (tmp_path / "pages").exists()


def test_it_serves_until_it_is_interrupted(folders):
    flags = [f"--gin.browse.store_dir={folders[0]}", "--gin.browse.port=0"]
    command = [sys.executable, "-m", "iml.browse", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stdout if line.startswith("serving http://127.0.0.1:"))
            with urllib.request.urlopen(line.removeprefix("serving ").partition(",")[0], timeout=120) as page:
                assert b"Tasks of the example store" in page.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0 and process.stderr.read() == ""
        finally:
            process.kill()
