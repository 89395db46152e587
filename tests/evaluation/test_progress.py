"""The time left of an evaluation."""

import io

import pytest
from rich.console import Console

from iml.evaluation.progress import Forecast, Watch, left, watched


def test_the_time_left_goes_by_the_kind_of_request():
    forecast = Forecast({"rank": 1000.0, "generate": 50.0})
    forecast.add("rank", 500.0, 10.0)
    # How long an answer takes is not known before one was generated.
    assert forecast.seconds is None and "not known" in left(forecast.seconds)
    forecast.add("generate", 10.0, 20.0)
    assert forecast.seconds == pytest.approx(500 * 10 / 500 + 40 * 20 / 10)
    forecast.correct("rank", 500.0)
    assert forecast.seconds == pytest.approx(1000 * 10 / 500 + 80)
    assert left(3725.2) == "1:02:05 left" and left(65) == "1:05 left"


def test_a_watch_gives_each_kind_its_own_time():
    now = [0.0]
    watch = Watch(lambda: now[0])
    watch.begin({"rank": 100.0, "generate": 100.0}, total=20, done=4)
    now[0] = 5.0
    # Opening files is nobody's time.
    watch.start()
    now[0] = 7.0
    watch.answered("rank", 50.0, 3)
    now[0] = 17.0
    watch.answered("generate", 50.0, 2)
    assert watch.done == 9 and watch.forecast.seconds == pytest.approx(2 + 10)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_was_answered_before_is_told(terminal):
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    with watched(console) as watch:
        watch.begin({"rank": 10.0}, 684, 417)
    assert "goes on: 417 of 684 requests are answered" in console.file.getvalue()
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    with watched(console) as watch:
        watch.begin({"rank": 10.0}, 684, 0)
    assert "goes on" not in console.file.getvalue()
