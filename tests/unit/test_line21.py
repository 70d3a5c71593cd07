"""CEA-608: what a decoder of line 21 shows, from pairs of bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
from texts import (
    CARRIAGE_RETURN,
    END_OF_CAPTION,
    ERASE,
    PAINT_ON,
    RESUME_LOADING,
    ROLL_UP_2,
    ROW_15,
    letters,
    odd,
    pop_on,
    twice,
)

from pipeline.media.line21 import LONGEST_S, Pair, Shown, decode

END = Fraction(3600)
RATE = 30


def pairs(codes: Iterable[tuple[int, int] | None], field: int = 1, *, first_frame: int = 0) -> list[Pair]:
    """One pair a frame, None where there is none."""
    return [
        Pair(at=Fraction(frame, RATE), field=field, first=odd(code[0]), second=odd(code[1]))
        for frame, code in enumerate(codes, start=first_frame)
        if code is not None
    ]


def shown(codes: Iterable[tuple[int, int] | None], channel: int = 1, field: int = 1) -> list[tuple[int, int, str]]:
    """(first frame, frame after the last, text) of the cues of a channel."""
    return [
        (round(cue.start * RATE), round(cue.end * RATE), cue.payload)
        for cue in decode(pairs(codes, field), END).get(channel, ())
    ]


def on_screen(*codes: tuple[int, int], write: Sequence[tuple[int, int]] = ()) -> str:
    """What a caption that was loaded with these codes reads."""
    ((_, _, text),) = shown([RESUME_LOADING, ROW_15, *codes, *write, END_OF_CAPTION, None, None, ERASE])
    return text


def test_pop_on_captions_are_there_from_one_frame_to_another() -> None:
    sent = pop_on([(40, 70, "One caption."), (100, 130, "And one more.")])

    assert shown(sent.get(frame) for frame in range(200)) == [(40, 70, "One caption."), (100, 130, "And one more.")]


def test_a_caption_takes_the_place_of_the_one_before() -> None:
    first = [*twice(RESUME_LOADING, ROW_15), *letters("First"), *twice(END_OF_CAPTION)]
    second = [*twice(RESUME_LOADING), (0x14, 0x2E), *twice(ROW_15), *letters("Second"), *twice(END_OF_CAPTION, ERASE)]

    assert [text for _, _, text in shown([*first, *second])] == ["First", "Second"]
    (_, end, _), (start, _, _) = shown([*first, *second])
    assert end == start


def test_rows_are_lines_from_top_to_bottom() -> None:
    row_14 = (0x14, 0x50)

    assert on_screen(write=[*letters("below"), row_14, *letters("above")]) == "above\nbelow"


@pytest.mark.parametrize(
    ("code", "row"),
    [
        *(((0x11, 0x40), 1), ((0x11, 0x60), 2), ((0x12, 0x40), 3), ((0x12, 0x60), 4), ((0x15, 0x40), 5)),
        *(((0x15, 0x60), 6), ((0x16, 0x40), 7), ((0x16, 0x60), 8), ((0x17, 0x40), 9), ((0x17, 0x60), 10)),
        *(((0x10, 0x40), 11), ((0x13, 0x40), 12), ((0x13, 0x60), 13), ((0x14, 0x40), 14), ((0x14, 0x60), 15)),
    ],
)
def test_what_stays_above_the_middle_belongs_to_the_top(code: tuple[int, int], row: int) -> None:
    (cue,) = decode(pairs([RESUME_LOADING, code, *letters("Here"), END_OF_CAPTION]), END)[1]

    assert cue.payload == "Here"
    assert cue.top is (row <= 7)


def test_letters_beyond_ascii() -> None:
    basic = [(0x2A, 0x5C), (0x5E, 0x5F), (0x60, 0x7B), (0x7C, 0x7D), (0x7E, 0x27)]
    special = [(0x11, 0x37), (0x11, 0x3F)]
    # An extended letter replaces the plain one before it.
    extended = [(ord("U"), 0), (0x12, 0x24), (ord("s"), 0), (0x13, 0x34)]

    assert on_screen(write=[*basic, *special, *extended]) == "áéíóúç÷Ññ’♪ûÜß"


def test_italics_and_underlines_are_kept_and_colours_are_not() -> None:
    italic, underlined, green = (0x11, 0x2E), (0x11, 0x21), (0x11, 0x22)
    write = [*letters("We"), italic, *letters("saw"), underlined, *letters("it"), green, *letters("go")]

    assert on_screen(write=write) == "We <i>saw</i> <u>it</u> go"


def test_indents_tabs_and_backspaces() -> None:
    indent_4, tab_2 = (0x14, 0x72), (0x17, 0x22)

    assert on_screen(indent_4, write=letters("Indented")) == "Indented"
    assert on_screen(write=[*letters("ab"), tab_2, *letters("cd")]) == "ab cd"
    assert on_screen(write=[*letters("abc"), (0x14, 0x21), *letters("d")]) == "abd"
    assert on_screen(write=[*letters("abcd"), (0x14, 0x72), (0x14, 0x24)]) == "abcd"
    assert on_screen(write=[*letters("abcdef"), (0x14, 0x72), *letters("xy")]) == "abcdxy"


def test_rolled_up_lines_are_read_with_the_one_before() -> None:
    line = [*twice(ROLL_UP_2), *twice(CARRIAGE_RETURN), *twice(ROW_15)]
    codes = [*line, *letters("First"), *line, *letters("Second"), *line, *letters("Third"), *twice(ERASE)]

    texts = [text for _, _, text in shown(codes)]
    times = [(start, end) for start, end, _ in shown(codes)]

    assert texts == ["First", "First\nSecond", "Second\nThird"]
    assert times[0][0] == 6, "from the first letter on"
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    assert times[-1][1] == codes.index(ERASE)


def test_painted_captions_grow_row_by_row() -> None:
    codes = [*twice(PAINT_ON), (0x14, 0x50), *letters("Above"), *twice(ROW_15), *letters("below"), *twice(ERASE)]

    assert [text for _, _, text in shown(codes)] == ["Above", "Above\nbelow"]


def test_both_fields_carry_two_channels_each() -> None:
    def in_second_channel(codes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(first | 0x08 if first in (0x14, 0x11) else first, second) for first, second in codes]

    one = [RESUME_LOADING, ROW_15, *letters("One"), END_OF_CAPTION]
    two = in_second_channel([RESUME_LOADING, ROW_15, *letters("Two"), END_OF_CAPTION])
    both = [*pairs([*one, *two]), *pairs([*one, *two], field=2)]

    found = decode(both, END)

    assert {channel: [cue.payload for cue in cues] for channel, cues in found.items()} == {
        1: ["One"], 2: ["Two"], 3: ["One"], 4: ["Two"],
    }  # fmt: skip


def test_what_is_not_for_captions_is_left_out() -> None:
    """Extended data services and text services share the line with them."""
    services = [(0x01, 0x03), *letters("Film title"), (0x0F, 0x1D)]
    text_service = [*twice((0x14, 0x2A)), *letters("Weather")]
    caption = [*twice(RESUME_LOADING, ROW_15), *letters("Said"), *services, *twice(RESUME_LOADING), *letters(" so")]

    assert [text for _, _, text in shown([*text_service, *caption, *twice(END_OF_CAPTION)])] == ["Said so"]


def test_a_code_that_is_repeated_after_a_pause_is_another_one() -> None:
    lines = [ROLL_UP_2, ROW_15, *letters("Gone"), CARRIAGE_RETURN, None, CARRIAGE_RETURN, *letters("Here"), ERASE]

    assert [text for _, _, text in shown(lines)] == ["Gone", "Here"]
    once = [code if code is not None else CARRIAGE_RETURN for code in lines if code != CARRIAGE_RETURN]
    assert [text for _, _, text in shown(once)] == ["Gone", "Gone\nHere"]


def test_the_third_of_three_is_meant_again() -> None:
    back = (0x14, 0x21)

    assert [on_screen(write=[*letters("abcdef"), *[back] * times]) for times in range(1, 5)] == [
        *("abcde", "abcde", "abcd", "abcd"),
    ]


def test_a_letter_with_the_wrong_parity_is_left_out() -> None:
    whole = pairs([RESUME_LOADING, ROW_15, *letters("abcd"), END_OF_CAPTION])
    damaged = [
        *whole[:2],
        Pair(at=whole[2].at, field=1, first=whole[2].first ^ 0x80, second=whole[2].second),
        *whole[3:],
    ]

    assert [cue.payload for cue in decode(damaged, END)[1]] == ["bcd"]


def test_the_last_caption_does_not_stay_for_ever() -> None:
    codes = [RESUME_LOADING, ROW_15, *letters("Last"), END_OF_CAPTION]
    at = Fraction(len(codes) - 1, RATE)

    assert decode(pairs(codes), at + 2)[1][0].end == at + 2
    assert decode(pairs(codes), END)[1][0].end == at + LONGEST_S


LIKELY = [RESUME_LOADING, ROW_15, END_OF_CAPTION, ERASE, ROLL_UP_2, CARRIAGE_RETURN, PAINT_ON, *letters("Text")]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_there_are_cues_in_order_or_none(seed: int) -> None:
    chance = random.Random(seed)

    def sent() -> tuple[int, int]:
        if chance.random() < 0.6:
            first, second = chance.choice(LIKELY)
            return odd(first), odd(second)
        return chance.randrange(256), odd(chance.randrange(128))

    for _ in range(50):
        noise = [
            Pair(at=Fraction(frame, RATE), field=chance.choice((1, 1, 2)), first=first, second=second)
            for frame, (first, second) in enumerate(sent() for _ in range(chance.randrange(100)))
        ]
        for cues in decode(noise, END).values():
            assert all(_fits(cue) for cue in cues)
            assert all(before.end <= after.start for before, after in pairwise(cues))


def _fits(cue: Shown) -> bool:
    return cue.start < cue.end <= END and cue.payload != "" and "\n\n" not in cue.payload
