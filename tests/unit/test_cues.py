"""Captions read well and keep their limits, whatever was said how fast."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.media.cues import Cue, CueLimits, Word, build_cues, limits_of

LIMITS = CueLimits()
LONG = "Nobody had waited for us in the hall of the house on the hill."
"""Fourteen words that fill a cue, and can be read while they are said at 400 ms a word."""

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cn"), exclude_characters="\ufeff"), min_size=1, max_size=12
)
STEPS = st.tuples(TEXTS, st.integers(0, 900), st.integers(0, 1500), st.booleans())
"""Text, how long it lasts, the pause before it (milliseconds), whether it is joined."""


def spoken(steps: list[tuple[str, int, int, bool]]) -> list[Word]:
    words, at = [], 0
    for text, lasts, pause, joined in steps:
        words.append(Word(text=text, start_ms=at + pause, end_ms=at + pause + lasts, joined=joined))
        at += pause + lasts
    return words


def speech(text: str, *, word_ms: int = 300, start_ms: int = 0) -> list[Word]:
    """Every word as long, one right after the other."""
    return [
        Word(text=word, start_ms=start_ms + n * word_ms, end_ms=start_ms + (n + 1) * word_ms)
        for n, word in enumerate(text.split())
    ]


def shown(cues: tuple[Cue, ...]) -> str:
    return "".join("".join(line.split()) for cue in cues for line in cue.lines)


# -- what always holds ------------------------------------------------------------------------------------------------


@given(st.lists(STEPS, max_size=60), st.booleans())
@example([("a" * 12, 0, 0, False)] * 40, True)
def test_no_word_is_lost_and_the_order_stays(steps: list[tuple[str, int, int, bool]], ends: bool) -> None:
    words = spoken(steps)

    cues = build_cues(words, end_ms=words[-1].end_ms if words and ends else None)

    assert shown(cues) == "".join("".join(word.text.split()) for word in words)


@given(st.lists(STEPS, min_size=1, max_size=60))
@example([("wordwordword", 0, 0, False)] * 60)
def test_cues_follow_each_other_and_keep_their_times(steps: list[tuple[str, int, int, bool]]) -> None:
    words = spoken(steps)

    cues = build_cues(words)

    assert all(LIMITS.shortest_ms <= cue.end_ms - cue.start_ms <= LIMITS.longest_ms for cue in cues)
    assert all(before.end_ms + LIMITS.gap_ms <= after.start_ms for before, after in pairwise(cues))
    assert all(cue.start_ms >= words[0].start_ms for cue in cues)


@given(st.lists(STEPS, min_size=1, max_size=60), st.integers(0, 40))
@example([("wordwordword", 0, 0, False)] * 60, 0)
def test_nothing_is_shown_after_the_end(steps: list[tuple[str, int, int, bool]], more: int) -> None:
    words = spoken(steps)
    end_ms = words[-1].end_ms + 1000 * more + len(words)

    cues = build_cues(words, end_ms=end_ms)

    assert all(0 <= cue.start_ms < cue.end_ms <= end_ms for cue in cues)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))
    if len(cues) * (LIMITS.shortest_ms + LIMITS.gap_ms) <= end_ms:
        assert all(LIMITS.shortest_ms <= cue.end_ms - cue.start_ms <= LIMITS.longest_ms for cue in cues)


@given(st.lists(st.tuples(st.text("abcdefgh.,", min_size=1, max_size=60), st.booleans()), min_size=1, max_size=60))
def test_lines_are_longer_than_allowed_only_for_a_single_word(texts: list[tuple[str, bool]]) -> None:
    words = spoken([(text, 250, 20, joined) for text, joined in texts])

    for cue in build_cues(words):
        assert 1 <= len(cue.lines) <= LIMITS.lines
        for line in cue.lines:
            assert len(line) <= LIMITS.line_chars or line in {word.text for word in words}


# -- how it reads -----------------------------------------------------------------------------------------------------


def test_silence_has_no_captions() -> None:
    assert build_cues([]) == ()
    assert build_cues([Word(text=" \n ", start_ms=0, end_ms=1000)]) == ()


def test_short_sentences_share_a_cue_and_long_ones_do_not() -> None:
    short = build_cues(speech("We came home late that night. Nobody had waited for us."))
    long = build_cues(speech(f"{LONG} {LONG}"))

    assert [cue.lines for cue in short] == [("We came home late that night.", "Nobody had waited for us.")]
    assert [" ".join(cue.lines) for cue in long] == [LONG, LONG]


def test_a_line_is_broken_at_a_clause() -> None:
    (cue,) = build_cues(speech("When the rain had stopped at last, we went out into the garden.", word_ms=350))

    assert cue.lines == ("When the rain had stopped at last,", "we went out into the garden.")


def test_no_line_ends_with_an_article_and_no_word_stands_alone() -> None:
    text = (
        "And so my fellow Americans ask not what your country can do for you ask what you can do for your country and "
        "for the people who will live in a better world than the one that we were given"
    )
    lines = [line.split() for cue in build_cues(speech(text, word_ms=280)) for line in cue.lines]

    assert not {words[-1] for words in lines[:-1]} & {"a", "the", "your", "my"}
    assert min(len(words) for words in lines) > 1


def test_a_long_pause_begins_a_new_cue() -> None:
    words = [*speech("I thought about it"), *speech("and I said yes", start_ms=4000)]

    assert [(cue.start_ms, cue.text) for cue in build_cues(words)] == [
        (0, "I thought about it"),
        (4000, "and I said yes"),
    ]


def test_a_cue_stays_until_it_is_read() -> None:
    """Seventeen characters a second, where nobody speaks next."""
    (cue,) = build_cues(speech("Extraordinarily uncomfortable circumstances.", word_ms=200))

    assert (cue.start_ms, cue.end_ms) == (0, -(-len("Extraordinarily uncomfortable circumstances.") * 1000 // 17))


def test_a_short_pause_is_closed_and_a_long_one_is_not() -> None:
    said = speech(LONG, word_ms=400)
    near = build_cues([*said, *speech(LONG, word_ms=400, start_ms=said[-1].end_ms + 300)])
    far = build_cues([*said, *speech(LONG, word_ms=400, start_ms=said[-1].end_ms + 1500)])

    assert near[0].end_ms == near[1].start_ms - LIMITS.gap_ms
    assert far[0].end_ms == said[-1].end_ms


def test_languages_without_spaces_are_joined_on_short_lines() -> None:
    characters = "今天的天气非常好，我们一起去公园散步，然后回家吃晚饭。"
    words = [
        Word(text=character, start_ms=n * 250, end_ms=(n + 1) * 250, joined=True)
        for n, character in enumerate(characters)
    ]
    cues = build_cues(words, limits_of("zh-hans"))

    assert "".join(line for cue in cues for line in cue.lines) == characters
    assert max(len(line) for cue in cues for line in cue.lines) <= 16


@pytest.mark.parametrize(("language", "chars"), [("en", 42), ("ja", 16), ("pt-br", 42), ("yue", 16)])
def test_every_language_has_its_limits(language: str, chars: int) -> None:
    assert limits_of(language).line_chars == chars
