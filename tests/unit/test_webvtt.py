"""What is written is WebVTT that nobody misreads, whatever was said."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.media.cues import Cue, Word, build_cues
from pipeline.media.markup import escape
from pipeline.media.webvtt import InvalidCaptions, read_webvtt, unescape, write_webvtt

SAID = st.lists(
    st.one_of(st.sampled_from(["<", ">", "&", "-->", "\n", "NOTE", "lt;", "<b>"]), st.characters()), max_size=9
).map("".join)


def cue(start_ms: int = 0, end_ms: int = 1000, *lines: str) -> Cue:
    return Cue(start_ms=start_ms, end_ms=end_ms, lines=lines or ("Hello.",))


@given(st.lists(SAID, max_size=20))
@example(["<\n\x1b"])
def test_whatever_is_said_is_read_as_it_was_written(texts: list[str]) -> None:
    cues = build_cues([Word(text=text, start_ms=n * 400, end_ms=n * 400 + 400) for n, text in enumerate(texts)])

    written = write_webvtt(cues)

    assert read_webvtt(written) == cues
    assert written.encode().decode() == written


@given(st.text())
def test_unescaping_undoes_escaping(text: str) -> None:
    assert not re.search("[<>]", escape(text))
    assert unescape(escape(text)) == text


def test_a_file_is_as_the_specification_writes_it() -> None:
    written = write_webvtt((cue(0, 2500, "Salt & pepper", "<laughs>"), cue(3_600_000, 3_601_001)))

    assert written == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\nSalt &amp; pepper\n&lt;laughs&gt;\n\n"
        "01:00:00.000 --> 01:00:01.001\nHello.\n"
    )


def test_no_captions_are_a_file_too() -> None:
    assert read_webvtt(write_webvtt(())) == ()


@pytest.mark.parametrize(
    ("cues", "says"),
    [
        ((cue(1000, 1000),), "ends before it begins"),
        ((cue(0, 1000), cue(999, 2000)), "cue 2 begins before"),
        ((cue(0, 1000, "a", "", "b"),), "empty lines"),
        ((cue(0, 1000, "bell \x07"),), "control character"),
    ],
)
def test_what_players_would_not_show_is_not_written(cues: tuple[Cue, ...], says: str) -> None:
    with pytest.raises(InvalidCaptions, match=says):
        write_webvtt(cues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1\n00:00:00,000 --> 00:00:01,000\nSubRip\n",
        "WEBVTT\n\n00:00:01.000 --> 00:00:00.500\nbackwards\n",
        "WEBVTT\n\n00:00:00.000 --> 00:00:61.000\nno such second\n",
        "WEBVTT\n\n0:0:0.000 --> 0:0:1.000\nshort fields\n",
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<script>alert(1)</script>\n",
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nsalt & pepper\n",
    ],
)
def test_what_we_would_not_write_is_refused(text: str) -> None:
    with pytest.raises(InvalidCaptions):
        read_webvtt(text)
