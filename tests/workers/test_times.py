"""Times in a video as people type and read them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from pipeline.errors import PipelineError
from workers.commands.times import asked, seconds, shown


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0", 0.0),
        ("12.5", 12.5),
        (" 12.5 ", 12.5),
        (".5", 0.5),
        ("90", 90.0),
        ("1:23", 83.0),
        ("1:23.456", 83.456),
        ("01:02:03.5", 3723.5),
        ("90:00", 5400.0),
        ("0:00:59.999", 59.999),
        # What is no moment of any video is for the fleet to refuse, with what is possible instead.
        ("-5", -5.0),
        ("-0:05", -5.0),
        ("inf", math.inf),
    ],
)
def test_a_time_is_read(text: str, time: float) -> None:
    assert seconds(text, "--start") == time


def test_no_number_is_read_as_none() -> None:
    assert math.isnan(seconds("NaN", "--start"))


@pytest.mark.parametrize("text", ["", "soon", "1:60", "1:60:00", "1:2:3:4", "1:-2", "1,5", "1:", ":30", "5s", "1_000"])
def test_what_is_no_time_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(PipelineError) as refused:
        seconds(text, "--end")

    assert refused.value.code == "parameter_invalid"
    assert "--end" in refused.value.message


def test_a_wrong_option_ends_the_command_as_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        asked("1:00", "soon")

    assert ended.value.code == 2
    assert "--end 'soon' is no time" in capsys.readouterr().err


def test_what_was_left_out_is_not_asked_for() -> None:
    assert asked(None, "1:00") == {"start_time": None, "end_time": 60.0}


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0:00.000"),
        (12.345, "0:12.345"),
        (59.9996, "1:00.000"),
        (3723.5, "1:02:03.500"),
        (Fraction(1001, 30000), "0:00.033"),
    ],
)
def test_a_time_is_shown_to_the_millisecond(time: float | Fraction, text: str) -> None:
    assert shown(time) == text
