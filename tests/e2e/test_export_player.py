"""What `export` makes is played by a browser without any player's script."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from makers import make_clip
from playwright.sync_api import Browser
from running import Folder, ignored, opened

from pipeline.media.cues import Cue
from pipeline.media.webvtt import write_webvtt
from pipeline.stages.export import export
from pipeline.tasks import ExportTask, ExportTrack
from workers.serve import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ASSET = "testasset01"


@pytest.mark.parametrize("seamed", [False, True], ids=["one encoder", "two encoders"])
def test_plays_to_the_end_as_a_plain_file(tmp_path: Path, browser: Browser, seamed: bool) -> None:
    root = tmp_path / "out"
    duration = make_export(tmp_path, root / "transcoded" / ASSET, seamed=seamed)

    with serve(root, ASSET) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}players/nothing")
        page.set_content(f'<video id="v" src="{server.url}transcoded/{ASSET}/video.mp4"></video>')
        page.evaluate("v.playbackRate = 4; v.play()")
        page.wait_for_function("v.ended || v.error", timeout=60_000)
        end = page.evaluate(
            """({error: v.error && v.error.message, duration: v.duration, time: v.currentTime, width: v.videoWidth,
                 frames: v.getVideoPlaybackQuality().totalVideoFrames, sound: v.webkitAudioDecodedByteCount})"""
        )
        # And back over all of it, where another encoder's pictures are.
        page.evaluate("v.currentTime = 0.5; v.play()")
        page.wait_for_function("v.error || (!v.ended && v.currentTime > 1)", timeout=60_000)
        again = page.evaluate("v.error && v.error.message")

    assert (end["error"], again) == (None, None)
    assert end["duration"] == pytest.approx(float(duration), abs=0.001)
    assert end["time"] == pytest.approx(end["duration"], abs=0.04)
    assert end["width"] == 320
    assert end["frames"] >= 0.9 * duration * 25
    assert end["sound"] > 0


def make_export(scratch: Path, folder: Path, *, seamed: bool) -> Fraction:
    """Eight seconds of picture, sound and captions; `seamed`: the middle of the picture is another encoder's."""
    clip = opened(make_clip(scratch / "clip.mp4", seconds=8), segment=2)
    _, (video,) = clip.transcode(scratch, preset="fast")
    _, (other,) = clip.transcode(scratch / "other", preset="fast", profile="main")
    middle = other if seamed else video
    parts = [video.init + video.segment(0), middle.init + middle.segment(1) + middle.segment(2)]
    (scratch / "v.mp4").write_bytes(b"".join(parts) + video.init + video.segment(3))
    (scratch / "t.vtt").write_text(write_webvtt([Cue(start_ms=1000, end_ms=2000, lines=("Hello",))]))
    task = ExportTask(
        asset=ASSET,
        tracks=(
            ExportTrack(track="v", kind="video", seamed=seamed),
            ExportTrack(track="a", kind="audio", language="en"),
            ExportTrack(track="t", kind="text", language="en"),
        ),
        end=clip.timeline.duration,
    )
    inputs = {"v": scratch / "v.mp4", "a": clip.audio(scratch).appended(), "t": scratch / "t.vtt"}
    return export(task, inputs, Folder(root=folder), ignored).duration
