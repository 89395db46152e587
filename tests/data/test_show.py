"""What the model sees is printed from the very tokens of the stream, and data cannot mark it up."""

import io

import pytest
from rich.console import Console

from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.show import show_step
from iml.data.stream import TrainStream
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    rows = [(f"[bold]source {i}[/nothing] \x1b[31m", f"target {i} [/]") for i in range(40)]
    store = make_store(folder, {"flan.marked": {"train": rows}})
    vocabulary = write_vocabulary(folder / "vocabulary")
    return TrainStream(
        store, vocabulary, Mixture(split_scheme="pocket"), PromptFormat(), batch_size=2, length=128
    )


def _printed(renderable, **settings):
    console = Console(file=io.StringIO(), width=200, **settings)
    console.print(renderable)
    return console.file.getvalue()


def test_a_step_shows_the_documents_of_its_lanes(stream):
    batches = stream.batches(stream.initial_state(), threads=0)
    taken = [next(batches) for _ in range(4)]
    text = _printed(show_step(stream, 3, lanes=(1,)))
    numbers = [number for number in taken[3][0]["example_ids"][1].tolist() if number >= 0]
    assert "step 3, lane 1" in text and f"{len(numbers)} documents" in text and "fill " in text
    for number in numbers:
        draw = stream.plan.draw(number)
        assert f"draw {number}" in text and f"uid {draw.row} " in text
        assert f"[bold]source {draw.row}[/nothing] ␛[31m" in text
        assert f" target {draw.row} [/]</s>" in text
    assert text == _printed(show_step(stream, 3, lanes=(1,), state=taken[1][1]))


def test_source_and_target_differ_in_style_and_terminal_escapes_are_not_obeyed(stream):
    text = _printed(show_step(stream, 0), force_terminal=True, color_system="standard")
    assert "\x1b[2m[bold]source" in text
    assert "\x1b[1;32m target" in text
    assert "␛[31m" in text


def test_wrong_steps_and_lanes_are_refused(stream):
    batches = stream.batches(stream.initial_state(), threads=0)
    _, after = next(batches)
    with pytest.raises(InputError, match="before the given state"):
        show_step(stream, 0, state=after)
    with pytest.raises(InputError, match="no lane 2"):
        show_step(stream, 0, lanes=(2,))
