"""Foreign markup becomes three tags or nothing, and text stays text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media.markup import Run, from_ass, payload
from pipeline.media.webvtt import StyledCue, read_styled, write_styled


def said(text: str) -> str:
    return from_ass(f"0,0,Default,,0,0,0,,{text}".encode())[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain, with a comma", "Plain, with a comma"),
        (r"Two\Nlines\nand three", "Two\nlines\nand three"),
        (r"{\i1}slanted{\i0} or not", "<i>slanted</i> or not"),
        (r"{\b1\i1}both{\r} none", "<b><i>both</i></b> none"),
        (r"{\b700}heavy{\b400}light", "<b>heavy</b>light"),
        (r"{\u1}under{\u0}", "<u>under</u>"),
        (r"{\i1}over a\Nbreak{\i0}", "<i>over a</i>\n<i>break</i>"),
        # Tags that only begin like ours.
        (r"{\be1\bord2\iclip(1,2)\blur3\fs20\c&HFFFFFF&}plain", "plain"),
        (r"{a comment}shown", "shown"),
        (r"\{not a comment\}", "{not a comment}"),
        (r"hard\hspace", "hard space"),
        ("5 < 6 & 7 > 3 --> x", "5 &lt; 6 &amp; 7 &gt; 3 --&gt; x"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (r"\N\N  spaces   inside \N", "spaces inside"),
        ("a\x00b\x1bc\ufeffd", "abcd"),
        (r"{\p1}m 0 0 l 100 0 100 100{\p0}", ""),
        (r"{\p1}m 0 0{\p0}words", "words"),
        ("{never closed", "{never closed"),
        (r"{\i1}closed{ and\Nnot{", "<i>closed{ and</i>\n<i>not{</i>"),
        (r"\{opened{\b1", r"{opened{\b1"),
        ("", ""),
    ],
)
def test_what_is_kept(text: str, expected: str) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(("tag", "top"), [("an8", True), ("an7", True), ("an2", False), ("an5", False)])
def test_what_belongs_to_the_top(tag: str, top: bool) -> None:
    assert from_ass(f"0,0,Default,,0,0,0,,{{\\{tag}}}Sign".encode()) == ("Sign", top)


def test_what_is_no_utf_8_is_read_as_windows_wrote_it() -> None:
    assert from_ass(b"0,0,Default,,0,0,0,,Caf\xe9 \x93quoted\x94")[0] == "Café “quoted”"
    assert from_ass(b"no event at all") == ("", False)


def test_nobody_reads_a_hundred_lines() -> None:
    lines = payload([Run(text="x" * 10_000)] for _ in range(100)).split("\n")

    assert (len(lines), {len(line) for line in lines}) == (20, {500})


@pytest.mark.parametrize("text", ["{" * 1_000_000, "{" * 1_000_000 + "}", r"\{" * 500_000, "{}" * 500_000])
def test_a_million_braces_end(text: str) -> None:
    """Each of them might have to be looked for its end, all the way to the end of the text."""
    found = said(text)

    assert len(found) <= 500
    assert set(found) <= {"{"}


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab{}\\<>&/ \n\ripbuNnh10r->\u2028\x85\u00a0é\ud800")), max_size=60))
def test_whatever_is_said_can_be_written_and_read(text: str) -> None:
    found, top = from_ass(b"0,0,Default,,0,0,0,," + text.encode(errors="surrogatepass"))

    if found:
        cue = StyledCue(start_ms=0, end_ms=1000, payload=found, top=top)
        assert read_styled(write_styled([cue])) == (cue,)
