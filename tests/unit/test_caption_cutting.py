"""Captions of an edited version are those of its range, on a clock of their own."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.cues import Cue
from pipeline.media.webvtt import StyledCue, read_styled, read_webvtt, write_styled, write_webvtt
from pipeline.presentation.caption_cutting import cut_captions


def cut(text: str, start: object, end: object) -> str:
    return cut_captions(text.encode(), Fraction(str(start)), Fraction(str(end))).decode()


WHOLE = """WEBVTT - Of all kinds

STYLE
::cue { color: lime }

NOTE Before the cut

early
00:00:00.500 --> 00:00:02.000 line:0
Gone

2
00:03.000 --> 01:00:00.500 align:start line:0%
Kept &amp; <i>shifted</i>,
<00:00:04.000>in two <00:00:05.250>lines

00:00:09.000 --> 00:00:12.000
Shortened

NOTE
After
the cut

00:00:10.000 --> 00:00:11.000
Gone
"""


def test_cues_are_cut_and_shifted_and_everything_else_stays() -> None:
    assert (
        cut(WHOLE, "4.5", 10)
        == """WEBVTT - Of all kinds
X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:405000

STYLE
::cue { color: lime }

NOTE Before the cut

2
00:00:00.000 --> 00:00:05.500 align:start line:0%
Kept &amp; <i>shifted</i>,
in two <00:00:00.750>lines

00:00:04.500 --> 00:00:05.500
Shortened

NOTE
After
the cut
"""
    )


@pytest.mark.parametrize("text", ["WEBVTT\n", "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nGone\n"])
def test_what_says_nothing_is_a_valid_file(text: str) -> None:
    cut_text = cut(text, 10, 20)

    assert cut_text == "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000\n"
    assert read_webvtt(cut_text) == ()


def test_the_map_says_where_the_media_begin_also_after_a_day() -> None:
    """An MPEG-2 clock has 33 bits; and the header is written once."""
    day = cut("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:9\n", 100_000, 100_001)

    assert day == f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{100_000 * 90_000 - 2**33}\n"
    assert "MPEGTS:93093\n" in cut("WEBVTT\n", "31031/30000", 5)


def test_lines_may_end_as_on_windows_and_a_mark_may_come_first() -> None:
    text = "\ufeffWEBVTT\n\n00:00:01.000 --> 00:00:02.000\nHello\n".replace("\n", "\r\n")

    assert cut(text, 1, 3).endswith("MPEGTS:90000\n\n00:00:00.000 --> 00:00:01.000\nHello\n")


def test_a_cue_of_no_duration_is_dropped_and_neighbours_still_touch() -> None:
    """A third of a millisecond is none; half of one goes up, where a cue ends and where the next one begins."""
    text = "WEBVTT\n\n" + "\n\n".join(
        f"00:00:0{a:.3f} --> 00:00:0{b:.3f}\n{a}" for a, b in [(1.0, 1.001), (1.001, 1.5), (1.5, 2.0)]
    )

    cues = read_webvtt(cut(text, "2002/2000", 3))

    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 499), (499, 999)]
    assert read_webvtt(cut(text, "1.0005", 3))[0] == Cue(start_ms=0, end_ms=1, lines=("1.0",))
    assert len(read_webvtt(cut(text, "1.0007", 3))) == 2


CUES = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 4000)), max_size=12)


@given(CUES, st.fractions(0, 20, max_denominator=60_000), st.fractions(0, 20, max_denominator=60_000))
def test_what_is_read_in_the_range_is_what_was_read_there_before(
    gaps: list[tuple[int, int]], start: Fraction, lasts: Fraction
) -> None:
    cues, at = [], 0
    for number, (gap, ms) in enumerate(gaps):
        cues.append(Cue(start_ms=at + gap, end_ms=at + gap + ms, lines=(f"Cue {number}", "a --> b")))
        at += gap + ms
    end = start + lasts

    shown = read_webvtt(cut(write_webvtt(cues), start, end))

    def near(ms: int) -> Fraction:
        return Fraction(ms) + start * 1000

    assert all(0 <= cue.start_ms < cue.end_ms <= round(lasts * 1000) + 1 for cue in shown)
    by_text = {cue.lines: cue for cue in cues}
    for cue in shown:
        before = by_text[cue.lines]
        assert abs(near(cue.start_ms) - max(before.start_ms, start * 1000)) <= Fraction(1, 2)
        assert abs(near(cue.end_ms) - min(before.end_ms, end * 1000)) <= Fraction(1, 2)
    gone = set(by_text) - {cue.lines for cue in shown}
    assert all(min(by_text[each].end_ms, end * 1000) - max(by_text[each].start_ms, start * 1000) < 1 for each in gone)


def test_styled_captions_of_a_source_stay_what_they_are() -> None:
    cues = [
        StyledCue(start_ms=1000, end_ms=4000, payload="<i>Both</i>", top=True),
        StyledCue(start_ms=2000, end_ms=3000, payload="at <b>once</b> &lt;3"),
    ]

    shown = read_styled(cut(write_styled(cues), "1.5", "2.5"))

    assert shown == (
        StyledCue(start_ms=0, end_ms=1000, payload="<i>Both</i>", top=True),
        StyledCue(start_ms=500, end_ms=1000, payload="at <b>once</b> &lt;3"),
    )
