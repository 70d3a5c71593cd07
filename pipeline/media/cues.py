"""From words with times to captions that can be read: what stands in which cue, on which line, from when to when.

Everything that affects how captions read lives here. A shortest path over the words decides where one cue ends and the
next begins: it pays for every cue, for a break inside a clause, for a pause that is talked over, for too little time to
read. Lines are broken by the same rules. No word is ever lost, no two cues overlap, and the limits hold unless a single
word is larger than they are. The limits are those of the Netflix and BBC guides.

Pure. Times are whole milliseconds of the asset's timeline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""What no line of text holds: control characters, halves of surrogate pairs, byte order marks."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word as it was heard, with the punctuation that belongs to it."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float = 1.0
    """0 to 1."""
    joined: bool = False
    """Written without a space after the word before (Chinese, Japanese, Thai …)."""


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One caption: what is shown from `start_ms` until before `end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, kw_only=True)
class CueLimits:
    """What a cue may be."""

    line_chars: int = 42
    lines: int = 2
    shortest_ms: int = 834
    """Five sixths of a second: less is a flicker."""
    longest_ms: int = 7000
    chars_per_s: int = 17
    """Reading speed that is kept where the speech leaves the time."""
    gap_ms: int = 80
    """Two frames at 25 a second between cues, so that the eye sees that the text has changed."""
    linger_ms: int = 500
    """A shorter pause than this between two cues is closed: the first one stays until the next."""


_DENSE = ("zh", "ja", "ko", "yue")
"""Languages whose characters are wide, and say more each."""


def limits_of(language: str) -> CueLimits:
    """The usual limits of a language (BCP 47)."""
    return CueLimits(line_chars=16, chars_per_s=9) if language.partition("-")[0] in _DENSE else CueLimits()


def build_cues(words: Sequence[Word], limits: CueLimits | None = None, *, end_ms: int | None = None) -> tuple[Cue, ...]:
    """The captions of `words`, which come in the order in which they are said.

    `end_ms` is where the asset ends; None: nowhere. A cue is shorter than `shortest_ms` only where so many cues do not
    fit before it.
    """
    limits = limits or CueLimits()
    said = _orderly(words)
    if not said:
        return ()
    groups = [said[first:last] for first, last in pairwise(_cuts(said, limits))]
    times = _times(groups, limits)
    if end_ms is not None:
        times = _before_end(times, end_ms, limits)
    return tuple(
        Cue(start_ms=start, end_ms=end, lines=_lines(group, limits))
        for (start, end), group in zip(times, groups, strict=True)
    )


def _orderly(words: Sequence[Word]) -> list[Word]:
    """Words that have something to show, none of them before the one that it follows."""
    orderly: list[Word] = []
    for word in words:
        text = " ".join(filter(None, (UNSHOWABLE.sub("", part) for part in word.text.split())))
        if text:
            start = max(word.start_ms, orderly[-1].start_ms if orderly else 0)
            orderly.append(replace(word, text=text, start_ms=start, end_ms=max(start, word.end_ms)))
    return orderly


# -- which words stand together ---------------------------------------------------------------------------------------

_SENTENCE = ".!?…。！？।؟"
_CLAUSE = ",;:–—、，；：،؛"
_CLOSING = "\"'”’»)]}」』"
_CLINGING = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "of",
        "to",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "with",
        "into",
        "than",
        "as",
        "and",
        "or",
        "but",
        "if",
        "so",
        "because",
        "not",
        "no",
        "very",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "am",
        "i'm",
        "i",
        "you",
        "he",
        "she",
        "it",
        "we",
        "they",
        "who",
        "which",
        "mr",
        "mrs",
        "ms",
        "dr",
    ]
)
"""English words that ask for the next one: a break after them stumbles."""
_OPENING = frozenset(
    [
        "and",
        "but",
        "or",
        "so",
        "because",
        "although",
        "though",
        "while",
        "when",
        "where",
        "which",
        "who",
        "that",
        "if",
        "unless",
        "until",
        "since",
        "as",
        "than",
        "then",
        "to",
        "of",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "with",
        "without",
        "into",
        "about",
        "after",
        "before",
        "between",
    ]
)
"""English words that a clause or a phrase begins with: a break before them reads well."""

_CUE = 1.0
"""Price of one more cue; the others are in proportion to it."""
_MID_CLAUSE = 2.2
_PAUSE_MS = 700
"""A longer pause than this wants a new cue."""


def _cuts(words: Sequence[Word], limits: CueLimits) -> list[int]:
    """Indexes where cues begin, and the end: the cheapest way through the words."""
    silences = [0.0, *accumulate(_silence(before, after) for before, after in pairwise(words)), 0.0]
    cheapest, came_from = [0.0] + [math.inf] * len(words), [0] * (len(words) + 1)
    for first in range(len(words)):
        for last in _ends(words, first, limits):
            price = cheapest[first] + _price(words, first, last, limits) + silences[last - 1] - silences[first]
            if price < cheapest[last]:
                cheapest[last], came_from[last] = price, first
    cuts = [len(words)]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return cuts[::-1]


def _ends(words: Sequence[Word], first: int, limits: CueLimits) -> Iterator[int]:
    """Every index at which a cue that begins with word `first` may end; the one after it in any case."""
    line, lines = 0, 1
    for last in range(first, len(words)):
        word = words[last]
        width = len(word.text) + (0 if word.joined or line == 0 else 1)
        if line and line + width > limits.line_chars:
            line, lines = 0, lines + 1
            width = len(word.text)
        line += width
        if last > first and (lines > limits.lines or word.end_ms - words[first].start_ms > limits.longest_ms):
            return
        yield last + 1


def _silence(before: Word, after: Word) -> float:
    """Price of having both words in one cue."""
    ended = 0.5 if _ends_with(before, _SENTENCE) else 0.0
    return ended + min(4.0, max(0, after.start_ms - before.end_ms - _PAUSE_MS) / 300)


def _price(words: Sequence[Word], first: int, last: int, limits: CueLimits) -> float:
    """Price of the words [first, last) as a cue, the silences inside it apart."""
    following = words[last] if last < len(words) else None
    room = limits.longest_ms
    if following is not None:
        room = min(room, following.start_ms - limits.gap_ms - words[first].start_ms)
    needed = max(limits.shortest_ms, _length(words[first:last]) * 1000 / limits.chars_per_s)
    hurry = max(0.0, needed - room) / 500
    alone = 1.0 if last - first == 1 and not (first == 0 or _ends_with(words[first - 1], _SENTENCE)) else 0.0
    return _CUE + hurry + alone + (_seam(words[last - 1], following) if following is not None else 0.0)


def _seam(before: Word, after: Word) -> float:
    """Price of a break between two words: none after a sentence, most inside a phrase."""
    if _ends_with(before, _SENTENCE):
        return 0.0
    if _ends_with(before, _CLAUSE):
        return 0.4
    if after.start_ms - before.end_ms > _PAUSE_MS:
        return 0.6
    price = _MID_CLAUSE
    if _bare(before) in _CLINGING:
        price += 1.5
    elif _bare(after) in _OPENING:
        price -= 1.0
    return price


def _ends_with(word: Word, marks: str) -> bool:
    return word.text.rstrip(_CLOSING).endswith(tuple(marks))


def _bare(word: Word) -> str:
    return word.text.strip("\"'“”‘’«»()[]{}¿¡-").casefold()


# -- lines ------------------------------------------------------------------------------------------------------------


def _lines(words: Sequence[Word], limits: CueLimits) -> tuple[str, ...]:
    """The words on as few lines as hold them, broken where it reads best."""
    if _length(words) <= limits.line_chars or len(words) == 1:
        return (_joined(words),)
    _, lines = _best_lines(tuple(words), limits, limits.lines)
    return lines


def _best_lines(words: Sequence[Word], limits: CueLimits, lines: int) -> tuple[float, tuple[str, ...]]:
    """(price, lines) of the cheapest way to break the words into at most `lines`."""
    fits = len(words) == 1 or _length(words) <= limits.line_chars
    if fits or lines == 1:
        # A last line that is too long is no way out: `_ends` has seen to it that there is a better one.
        return (0.0 if fits else math.inf, (_joined(words),))
    best: tuple[float, tuple[str, ...]] = (math.inf, (_joined(words),))
    for at in range(1, len(words)):
        head = words[:at]
        if at > 1 and _length(head) > limits.line_chars:
            break
        price, tail = _best_lines(words[at:], limits, lines - 1)
        uneven = abs(_length(head) - len(tail[0])) / limits.line_chars
        price += _seam(words[at - 1], words[at]) + 2 * uneven
        if price < best[0]:
            best = (price, (_joined(head), *tail))
    return best


def _length(words: Sequence[Word]) -> int:
    return sum(len(word.text) + (not word.joined) for word in words) - (not words[0].joined)


def _joined(words: Sequence[Word]) -> str:
    return "".join(word.text if word.joined or n == 0 else f" {word.text}" for n, word in enumerate(words))


# -- from when to when ------------------------------------------------------------------------------------------------


def _times(groups: Sequence[Sequence[Word]], limits: CueLimits) -> list[tuple[int, int]]:
    """(start, end) of every cue: with its first word, until it is said and read, or until just before the next one.

    Speech that is too fast for the shortest cue pushes what follows back.
    """
    times: list[tuple[int, int]] = []
    earliest = 0
    for number, group in enumerate(groups):
        start = max(group[0].start_ms, earliest)
        read = math.ceil(_length(group) * 1000 / limits.chars_per_s)
        wanted = min(max(group[-1].end_ms - start, read, limits.shortest_ms), limits.longest_ms)
        if number + 1 < len(groups):
            room = groups[number + 1][0].start_ms - limits.gap_ms - start
            if wanted > room or room - wanted < limits.linger_ms - limits.gap_ms:
                wanted = min(max(room, limits.shortest_ms), limits.longest_ms)
        times.append((start, start + wanted))
        earliest = start + wanted + limits.gap_ms
    return times


def _before_end(times: Sequence[tuple[int, int]], end_ms: int, limits: CueLimits) -> list[tuple[int, int]]:
    """The same times, with nothing after the asset's end: the last cues move forward where they have to."""
    moved: list[tuple[int, int]] = []
    bound = end_ms
    for start, end in reversed(times):
        last = min(end, bound)
        first = min(start, last - limits.shortest_ms)
        moved.append((first, last))
        bound = first - limits.gap_ms
    if moved[-1][0] >= 0:
        return moved[::-1]
    # Even the shortest ones do not fit: they share what there is.
    share = max(end_ms, len(times))
    return [(share * n // len(times), share * (n + 1) // len(times)) for n in range(len(times))]
