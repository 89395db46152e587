"""Strict gin: what a user mistypes is named, with the nearest right name."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import pytest

from iml import configuration
from iml.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Mixture:
    """Rates.

    Attributes:
      eps: cap on the examples
        of a task.
    """

    eps: int | None = 3
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Adam:
    rate: float = 1e-5


def tune(
    mixture: Mixture,
    steps: int,
    tasks: Sequence[str] = ("*",),
    adam: Adam = Adam(),
    dry_run: bool = False,
    show: str = "",
    fast: bool = False,
):
    return mixture, steps, tasks, adam, dry_run, show, fast, configuration.operative()


FILE = """
STEPS = %gin.REQUIRED
tune.mixture = @Mixture()
tune.steps = %STEPS
Mixture.eps = 5
"""


@pytest.fixture
def gin_file(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text(FILE)
    return str(path)


def call(gin_file, *arguments):
    return configuration.run(
        tune,
        doc="Tunes.",
        configurables=(Mixture, Adam),
        flags={"show": "what to show", "fast": "whether to hurry"},
        argv=[f"--gin_file={gin_file}", *arguments],
    )


def test_files_bindings_and_flags_reach_the_entry(gin_file):
    result = call(gin_file, "--gin.STEPS=7", "--gin.Mixture.shares={'flan': 0.2}", "--dry_run", "--show=4")
    assert result[:6] == (Mixture(5, {"flan": 0.2}), 7, ("*",), Adam(), True, "4")


def test_a_preset_stands_for_a_file_of_the_project(gin_file, tmp_path, monkeypatch, capsys):
    (tmp_path / "mixes").mkdir()
    (tmp_path / "mixes" / "wide.gin").write_text("Mixture.eps = 9\n")
    monkeypatch.setattr(configuration, "CONFIG_DIR", tmp_path)

    def run(*arguments):
        argv = [f"--gin_file={gin_file}", "--gin.STEPS=7", *arguments]
        return configuration.run(
            tune, doc="Tunes.", configurables=(Mixture, Adam), presets={"mix": "mixes"}, argv=argv
        )

    assert run("--mix=wide")[0] == run("--mix", "wide")[0] == Mixture(9)
    run("--help")
    assert "--gin_file=mixes/NAME.gin: wide" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--mix=wied")
    assert "--mix': there is no mix 'wied'. Did you mean wide?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "fast"), [([], False), (["--fast"], True), (["--fast=true"], True), (["--fast=false"], False)]
)
def test_a_switch_is_true_or_false(gin_file, given, fast):
    assert call(gin_file, "--gin.STEPS=7", *given)[6] is fast
    assert call(gin_file, "--gin.STEPS=7", *[word.replace("fast", "dry_run") for word in given])[4] is fast


def test_a_word_without_quotes_is_a_string(gin_file):
    assert call(gin_file, "--gin.STEPS=7", "--gin.tune.tasks=['a', \"b\"]")[2] == ["a", "b"]


def test_the_operative_configuration_reproduces_the_call(gin_file, tmp_path):
    first = call(gin_file, "--gin.STEPS=7", "--gin.tune.adam=@Adam()", "--gin.Adam.rate=0.5", "--show=4")
    again = tmp_path / "operative.gin"
    again.write_text(first[-1])
    second = call(str(again))
    assert second[:4] == first[:4]
    assert second[-1] == first[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("STEPS", "must be given")),
        (("--gin.STEP=7",), ("'STEP'", "nothing uses it", "Did you mean STEPS?")),
        (("--gin.STEPS=7", "--gin.Mixture.epps=2"), ("Mixture has no setting 'epps'", "Mixture.eps?")),
        (("--gin.STEPS=7", "--gin.Mixtur.eps=2"), ("'Mixtur'", "Did you mean Mixture?")),
        (("--gin.STEPS=7", "--gin.Adam.rate=2"), ("'Adam'", "nothing uses it")),
        (("--gin.STEPS=seven",), ("tune.steps", "must be int", "'seven'")),
        (("--gin.STEPS=7", "--gin.tune.adam=@Adam"), ("tune.adam", "@Adam()")),
        (("--gin.STEPS=7", "--gin.tune.tasks=one"), ("tune.tasks", "Sequence[str]")),
        (("--gin.STEPS=%OTHER",), ("OTHER", "must be given")),
        (("--gin.STEPS",), ("needs a value",)),
        (("--gin_fil=x",), ("--gin_fil", "Did you mean --gin_file?")),
        (("--dry_run=maybe",), ("--dry_run", "true or false, not 'maybe'")),
        (("--gin.STEPS=7", "--fast=1"), ("--fast", "true or false, not '1'")),
        (("--gin.STEPS=7", "--fast="), ("--fast", "true or false")),
        (("steps",), ("unexpected argument 'steps'",)),
    ],
)
def test_mistakes_are_named(gin_file, capsys, arguments, words):
    with pytest.raises(SystemExit) as exit_:
        call(gin_file, *arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_missing_entry_argument_is_named():
    with pytest.raises(InputError, match=r"tune\.mixture"):
        configuration.configure(tune, (Mixture, Adam), bindings=["tune.steps = 3"], flags=("show", "fast"))


def test_a_path_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()

    def write(folder: str, dry_run: bool = False):
        (pathlib.Path(folder) / "new").mkdir(parents=True)

    with pytest.raises(SystemExit) as exit_:
        configuration.run(write, doc="", argv=[f"--gin.write.folder={tmp_path / 'file'}"])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: Not a directory: ") and str(tmp_path / "file") in error

    def connect(dry_run: bool = False):
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionRefusedError):
        configuration.run(connect, doc="", argv=[])


def test_a_mistake_in_a_file_names_file_and_line(tmp_path, capsys):
    path = tmp_path / "bad.gin"
    path.write_text("tune.steps = 1\nMixture.epz = 4\n")
    with pytest.raises(SystemExit):
        call(str(path))
    assert f"{path}:2: Mixture has no setting 'epz'" in capsys.readouterr().err


def test_help_lists_settings_with_defaults_and_meaning(gin_file, capsys):
    call(gin_file, "--help")
    page = capsys.readouterr().out
    assert "tune.steps required" in page
    assert "Mixture.eps = 3\n        cap on the examples of a task." in page.replace("the cap", "cap")
    assert "what to show" in page


def test_a_folder_named_like_a_package_does_not_get_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "searched" / "runs").mkdir(parents=True)
    (tmp_path / "searched" / "runs" / "run.gin").write_text(FILE)
    (tmp_path / "work" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    search = f"--gin_search_paths={tmp_path / 'searched'}"
    assert call("runs/run.gin", search, "--gin.STEPS=7")[1] == 7
