"""CEA-608: the captions of line 21, two bytes at a time (ANSI/CTA-608-E S-2019).

A decoder holds two screens of 15 rows and 32 columns, one that is shown and one that is being written. Pop-on captions
swap the two; roll-up and paint-on captions are written where everybody sees it. What becomes a cue is the shown screen,
from one change of its rows to the next: of text that appears letter by letter the cue has all of it from the first
letter on. Fields carry two channels each, told apart by a bit of every control code, and their bytes carry odd parity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby

from pipeline.media.markup import Run, payload

ROWS, COLUMNS = 15, 32
LONGEST_S = 16
"""Seconds after which a decoder clears a screen that hears no more (§C.9)."""
MOST_CUES = 50_000
"""Of one channel; later ones are left out."""
_AGAIN_S = Fraction(6, 100)
"""A control code is repeated in the next frame; with an empty frame between them, the second one is another."""
_TOP_ROWS = 7
"""Captions that stay in these rows stand at the top."""

_BASIC = {
    **{code: chr(code) for code in range(0x20, 0x7F)},
    **dict(zip((0x27, 0x2A, 0x5C, 0x5E, 0x5F, 0x60, 0x7B, 0x7C, 0x7D, 0x7E, 0x7F), "’áéíóúç÷Ññ█", strict=True)),
}
_SPECIAL = dict(enumerate("®°½¿™¢£♪à\u00a0èâêîôû", start=0x30))
_EXTENDED = {
    2: dict(enumerate("ÁÉÓÚÜü‘¡*'—©℠•“”ÀÂÇÈÊËëÎÏïÔÙùÛ«»", start=0x20)),
    3: dict(enumerate("ÃãÍÌìÒòÕõ{}\\^_|~ÄäÖöß¥¤¦ÅåØø┌┐└┘", start=0x20)),
}
_PAC_ROWS = {0: (11, 11), 1: (1, 2), 2: (3, 4), 5: (5, 6), 6: (7, 8), 7: (9, 10), 3: (12, 13), 4: (14, 15)}
"""Rows of a preamble address code by the low bits of its first byte; the second of them with 0x20 in its second."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two bytes of one field, as they were sent."""

    at: Fraction
    """Seconds of the picture that carried them."""
    field: int
    """1 or 2."""
    first: int
    second: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one channel showed, from when to when."""

    start: Fraction
    end: Fraction
    payload: str
    """As `pipeline.media.markup.payload` writes it."""
    top: bool


def decode(pairs: Iterable[Pair], end: Fraction) -> Mapping[int, tuple[Shown, ...]]:
    """The captions of every channel that has any, by its number: 1 to 4, for CC1 to CC4.

    `pairs` come in the order of their pictures; what is on the screen last goes at `end`.
    """
    fields = {1: _Field(number=1), 2: _Field(number=2)}
    for pair in pairs:
        fields[pair.field].take(pair)
    channels = {number: channel for each in fields.values() for number, channel in each.channels.items()}
    return {number: found for number, channel in sorted(channels.items()) if (found := channel.finish(end))}


def _odd(byte: int) -> bool:
    return byte.bit_count() % 2 == 1


@dataclass(kw_only=True)
class _Field:
    """One of the two fields: hands every pair to the channel that it is meant for."""

    number: int
    channels: dict[int, _Channel] = field(default_factory=dict)
    _current: _Channel | None = None
    """None: what follows is not for captions (extended data services, text services)."""
    _last: Pair | None = None
    """The control code right before this pair, where it has not been repeated yet."""

    def take(self, pair: Pair) -> None:
        first, second = pair.first & 0x7F, pair.second & 0x7F
        if 0x10 <= first < 0x20:
            self._control(pair, first, second)
            return
        self._last = None
        if 0 < first < 0x10:  # extended data services: until a control code
            self._current = None
        elif self._current is not None:
            for raw, byte in ((pair.first, first), (pair.second, second)):
                if _odd(raw) and byte in _BASIC:
                    self._current.write(_BASIC[byte], pair.at)

    def _control(self, pair: Pair, first: int, second: int) -> None:
        if not (_odd(pair.first) and _odd(pair.second)) or second < 0x20:
            return
        # Control codes are sent twice, lest one is lost; the second one of two does nothing.
        last, self._last = self._last, pair
        if last is not None and replace(last, at=pair.at) == pair and pair.at - last.at < _AGAIN_S:
            self._last = None
            return
        number = 2 * (self.number - 1) + (2 if first & 0x08 else 1)
        channel = self.channels.setdefault(number, _Channel())
        meant = channel.control(first & 0x07, second, pair.at)
        self._current = channel if meant else None


@dataclass(frozen=True, kw_only=True)
class _Cell:
    text: str
    styles: str


_Screen = dict[int, dict[int, _Cell]]
"""Cells by row and column, both from 0."""


@dataclass(kw_only=True)
class _Channel:
    """One caption channel: what is shown, what is being written, and how."""

    mode: str = ""
    """`pop`, `roll`, `paint`; `text` for the text service, and nothing before the first of them."""
    depth: int = 2
    """Rows that roll up."""
    row: int = ROWS - 1
    column: int = 0
    styles: str = ""
    shown: _Screen = field(default_factory=dict)
    hidden: _Screen = field(default_factory=dict)
    since: Fraction | None = None
    """When what is shown began to be; None while nothing is."""
    cues: list[Shown] = field(default_factory=list)

    # -- what comes in -------------------------------------------------------------------------------------------------

    def write(self, text: str, at: Fraction) -> None:
        if self.mode not in ("pop", "roll", "paint"):
            return
        if self.mode != "pop" and self.since is None:
            self.since = at
        self._screen.setdefault(self.row, {})[self.column] = _Cell(text=text, styles=self.styles)
        self.column = min(self.column + 1, COLUMNS - 1)

    def control(self, group: int, code: int, at: Fraction) -> bool:
        """Do what a control code says. False: what follows is not for captions."""
        if code >= 0x40:
            self._address(group, code, at)
        elif group == 1 and code < 0x30:
            self._mid_row(code, at)
        elif group == 1:
            self.write(_SPECIAL[code], at)
        elif group in _EXTENDED:
            # It replaces the plain letter before it, which is for decoders that do not know it.
            self._back()
            self.write(_EXTENDED[group][code], at)
        elif group == 7 and 0x21 <= code <= 0x23:
            self.column = min(self.column + code - 0x20, COLUMNS - 1)
        elif group in (4, 5) and code < 0x30:
            self._command(code, at)
        return self.mode != "text"

    def _command(self, code: int, at: Fraction) -> None:
        match code:
            case 0x20:  # resume caption loading
                self.mode = "pop"
            case 0x21:  # backspace
                self._back()
            case 0x24:  # delete to end of row
                self._clear_to_end()
            case 0x25 | 0x26 | 0x27:  # roll-up captions, 2 to 4 rows
                self._roll_up(code - 0x23, at)
            case 0x29:  # resume direct captioning
                self._cut(at)
                self.mode = "paint"
            case 0x2A | 0x2B:  # text services
                self.mode = "text"
            case 0x2C:  # erase displayed memory
                self._show({}, at)
            case 0x2D:  # carriage return
                self._carriage_return(at)
            case 0x2E:  # erase non-displayed memory
                self.hidden = {}
            case 0x2F:  # end of caption
                self.mode = "pop"
                written, self.hidden = self.hidden, self.shown
                self._show(written, at)

    # -- where it is written -------------------------------------------------------------------------------------------

    @property
    def _screen(self) -> _Screen:
        return self.hidden if self.mode == "pop" else self.shown

    def _address(self, group: int, code: int, at: Fraction) -> None:
        """Preamble address code: row, indent and style of what follows."""
        row = _PAC_ROWS[group][bool(code & 0x20)] - 1
        if self.mode == "roll":
            self._move(row, at)
        elif self.mode == "paint" and row != self.row:
            self._cut(at)
        self.row = row
        style = code >> 1 & 0x07
        self.column = 4 * style if code & 0x10 else 0
        self.styles = ("i" if style == 7 and not code & 0x10 else "") + ("u" if code & 0x01 else "")

    def _mid_row(self, code: int, at: Fraction) -> None:
        """A change of style, which takes the place of a space."""
        self.styles = ""
        self.write(" ", at)
        self.styles = ("i" if code >> 1 & 0x07 == 7 else "") + ("u" if code & 0x01 else "")

    def _back(self) -> None:
        self.column = max(self.column - 1, 0)
        self._screen.get(self.row, {}).pop(self.column, None)

    def _clear_to_end(self) -> None:
        row = self._screen.get(self.row, {})
        for column in [column for column in row if column >= self.column]:
            del row[column]

    # -- rolling up ----------------------------------------------------------------------------------------------------

    def _roll_up(self, depth: int, at: Fraction) -> None:
        if self.mode != "roll":
            if self.mode in ("pop", "paint"):
                self._show({}, at)
                self.hidden = {}
            self.mode, self.row, self.column, self.styles = "roll", ROWS - 1, 0, ""
        self.depth = depth

    def _carriage_return(self, at: Fraction) -> None:
        if self.mode != "roll":
            return
        top = self.row - self.depth + 1
        self._show({row - 1: cells for row, cells in self.shown.items() if top < row <= self.row}, at)
        self.column, self.styles = 0, ""

    def _move(self, row: int, at: Fraction) -> None:
        """The window moves as a whole, to have its last line in this row."""
        if row != self.row:
            moved = {each + row - self.row: cells for each, cells in self.shown.items()}
            self._show({each: cells for each, cells in moved.items() if 0 <= each < ROWS}, at)

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _show(self, screen: _Screen, at: Fraction) -> None:
        self._cut(at)
        self.shown = screen
        self.since = at if any(screen.values()) else None

    def _cut(self, at: Fraction) -> None:
        """A cue of what was shown until now."""
        if self.since is not None and at > self.since and len(self.cues) < MOST_CUES:
            rows = [cells for _, cells in sorted(self.shown.items()) if _written(cells)]
            if text := payload(_runs(cells) for cells in rows):
                lowest = max(row for row, cells in self.shown.items() if _written(cells))
                self._add(Shown(start=self.since, end=at, payload=text, top=lowest < _TOP_ROWS))
            self.since = at

    def _add(self, cue: Shown) -> None:
        """One more cue; one that only goes on makes the one before it longer."""
        if self.cues and replace(self.cues[-1], start=cue.start, end=cue.end) == cue and self.cues[-1].end == cue.start:
            cue = replace(cue, start=self.cues.pop().start)
        self.cues.append(cue)

    def finish(self, end: Fraction) -> tuple[Shown, ...]:
        if self.since is not None:
            self._cut(min(end, self.since + LONGEST_S))
        return tuple(self.cues)


def _written(cells: Mapping[int, _Cell]) -> bool:
    return any(not cell.text.isspace() for cell in cells.values())


def _runs(cells: Mapping[int, _Cell]) -> Sequence[Run]:
    """A row as runs of one style; columns that nobody wrote are spaces."""
    blank = _Cell(text=" ", styles="")
    row: Iterator[_Cell] = (cells.get(column, blank) for column in range(max(cells) + 1))
    return [
        Run(text="".join(cell.text for cell in run), styles=styles)
        for styles, run in groupby(row, key=lambda cell: cell.styles)
    ]
