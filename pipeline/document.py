"""The asset document: what an API layer shows of an asset, in the reference's shape.

One pydantic model with the reference's field names (TPStreams, Uplynk) and a few of ours beside them. It changes only
through the functions below, each the consequence of one fact, and every change comes with `asset.updated`.
A later job never moves `status` away from `Completed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline import keys
from pipeline.requests import DuplicateRequest, ProcessRequest
from pipeline.tasks import MediaInfo

VideoStatus = Literal["Not Started", "Queued", "Transcoding", "Completed", "Error", "Cancelled"]


class Input(BaseModel):
    """Where the source is: the customer's URL (scheme, host and path) until ingest, then its private key."""

    url: str


class OutputUrls(BaseModel):
    """Where one codec's presentation is."""

    hls_url: str
    dash_url: str | None


class Rendition(BaseModel):
    """One rung or sound track as made (ours)."""

    name: str
    kind: Literal["video", "audio"]
    codec: str = Field(description="RFC 6381.")
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    language: str | None = None
    bandwidth: int = Field(description="Peak bits a second.")
    bytes: int = Field(description="Size of all segments.")


class SubtitleTrack(BaseModel):
    """A text track that players can choose; `url` is one WebVTT file, on the timeline of what is played."""

    id: int | str = Field(description="Its number, never given to another; the id of `track` where it has none.")
    track: str = Field(default="", description="Its id among the tracks of the asset (ours).")
    type: Literal["Subtitle"] = "Subtitle"
    name: str = Field(description="What players show.")
    language: str = Field(description="BCP 47, lower case; `und` where it is not known.")
    url: str
    auto_generated: bool = Field(default=False, description="A machine wrote it.")


class VideoEdit(BaseModel):
    """The part of an asset that is played, in seconds of its own timeline; nothing of the rest is gone."""

    start_time: float = Field(description="Of the first frame that is shown.")
    end_time: float = Field(description="Where the first frame would be that is not shown.")
    trim_job_id: int | None = Field(default=None, description="Number of the trim that asked for it.")


class Video(BaseModel):
    """The part of the document that the pipeline fills."""

    progress: int = Field(
        default=0, ge=0, le=100, description="100 at the end; what happens meanwhile is on the progress stream."
    )
    status: VideoStatus = "Not Started"
    thumbnails: list[str] = []
    playback_url: str
    dash_url: str | None
    preview_thumbnail_url: str | None = None
    cover_thumbnail_url: str | None = None
    format: Literal["abr"] = "abr"
    resolutions: list[str] = Field(description="As asked.")
    duration: int | None = Field(default=None, description="Whole seconds of what is played.")
    video_codec: str | None = "h264"
    video_codecs: list[str] = ["h264"]
    audio_codec: str | None = "aac"
    content_protection_type: Literal["drm", "aes", "disable"] = "disable"
    enable_drm: bool = False
    generate_subtitle: bool = False
    transmux_only: bool | None = None
    tracks: list[SubtitleTrack] = []
    inputs: list[Input]
    output_urls: dict[str, OutputUrls]
    mp4_url: str | None = Field(default=None, description="What `asset.export` made of what is played now.")
    ttml_url: str | None = None
    # ours
    renditions: list[Rendition] = []
    duration_ms: int | None = None
    edit: VideoEdit | None = Field(default=None, description="Which part is played; null: all of it.")
    rays: int = Field(default=0, description="Number of renditions.")
    slices: int = Field(default=0, description="Number of segments of one rendition.")
    error: dict[str, Any] | None = None


class AssetDocument(BaseModel):
    """An asset as the world sees it."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str | None = None
    type: Literal["video", "audio"] = "video"
    bytes: int | None = Field(default=None, description="Size of the source.")
    parent: dict[str, Any] | None = None
    parent_id: str | None = None
    live_stream: None = None
    created: int = Field(description="Milliseconds since 1970.")
    lastmod: int = Field(description="Milliseconds since 1970 of the last change.")
    version: int = Field(default=0, description="Grows by one with every change.")
    presentation: int = Field(default=0, description="Version of the presentation that is shown; 0: there is none.")
    expire_at: int = Field(default=0, description="When it will be deleted, milliseconds since 1970; 0: never.")
    deleted: int | None = Field(default=None, description="When it was deleted, milliseconds since 1970.")
    orig_filename: str | None = None
    external_id: str | None = None
    meta: dict[str, Any] = {}
    video: Video


def load(document: Mapping[str, Any]) -> AssetDocument:
    return AssetDocument.model_validate(document)


def not_started(request: ProcessRequest, *, resolutions: tuple[str, ...], base_url: str, now_ms: int) -> AssetDocument:
    """The document of a request that nobody has accepted yet: the URLs are final already."""
    doors = _doors(request.asset_id, base_url)
    return AssetDocument(
        id=request.asset_id,
        title=request.title,
        parent_id=request.parent_id,
        created=now_ms,
        lastmod=now_ms,
        orig_filename=request.orig_filename,
        external_id=request.external_id,
        meta=request.meta,
        expire_at=request.expire_at,
        video=Video(
            playback_url=doors.hls_url,
            dash_url=doors.dash_url,
            resolutions=list(resolutions),
            generate_subtitle=request.generate_subtitle,
            inputs=[Input(url=_shown(request))],
            output_urls={"h264": doors},
        ),
    )


def cut_out(request: DuplicateRequest, of: AssetDocument, *, base_url: str, now_ms: int) -> AssetDocument:
    """The document of a clip that nobody has accepted yet: what it shares with the asset `of` is known."""
    doors = _doors(request.new_id, base_url)
    shared = of.video
    codec = next(iter(shared.output_urls))
    return AssetDocument(
        id=request.new_id,
        title=request.title if request.title is not None else of.title,
        type=of.type,
        bytes=of.bytes,
        parent={"title": of.title, "uuid": of.id},
        parent_id=of.id,
        created=now_ms,
        lastmod=now_ms,
        orig_filename=of.orig_filename,
        external_id=request.external_id,
        meta=request.meta,
        expire_at=request.expire_at,
        video=Video(
            playback_url=doors.hls_url,
            dash_url=doors.dash_url,
            resolutions=list(shared.resolutions),
            video_codec=shared.video_codec,
            video_codecs=list(shared.video_codecs),
            audio_codec=shared.audio_codec,
            inputs=list(shared.inputs),
            output_urls={codec: doors},
        ),
    )


def _doors(asset: str, base_url: str) -> OutputUrls:
    base = base_url.rstrip("/")
    return OutputUrls(hls_url=f"{base}/{keys.hls_door(asset)}", dash_url=f"{base}/{keys.dash_door(asset)}")


def _shown(request: ProcessRequest) -> str:
    """Where the source is, as anybody may see it; an upload lies in its place already."""
    return public_url(request.url) if request.url else keys.source(request.asset_id, request.orig_filename or "")


def public_url(url: str) -> str:
    """A source URL without query, fragment and userinfo: those may be secrets.

    Of one that cannot be told apart with certainty (a `/` or `?` in a password) only the scheme is left.
    """
    head = _QUERY.sub("", url)
    scheme, separator, rest = head.partition("://")
    if not separator:
        return f"{head.partition(':')[0]}:…" if _HALF_URL.match(head) else head
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    doubtful = "@" in path if ":" in host else "@" in url[len(head) :] and not slash
    return f"{scheme}://…" if doubtful or not _AUTHORITY.fullmatch(host) else f"{scheme}://{host}{slash}{path}"


def holds_secret(url: str) -> bool:
    """Something of it is not to be shown."""
    return public_url(url) != url


_QUERY = re.compile(r"[?#].*", re.DOTALL)
_HALF_URL = re.compile(r"\s*(https?|s3|ftp):", re.IGNORECASE)
_AUTHORITY = re.compile(r"([^\s:@\\]*|\[[0-9A-Fa-f:.]*\])(:[0-9]*)?")


def queued(document: AssetDocument, *, aside: bool = False) -> AssetDocument:
    """A job was accepted: what went wrong before is forgotten; an asset that was complete stays so.

    `aside`, here and below: it is a `Job.aside`; an asset that plays stays what it is.
    """
    if _settled(document, aside):
        return _video(document, error=None)
    return _video(document, status="Queued", progress=0, error=None)


def asked(document: AssetDocument, resolutions: Iterable[str]) -> AssetDocument:
    """Other rungs are wished for from now on."""
    return _video(document, resolutions=list(resolutions))


def expiring(document: AssetDocument, at_ms: int) -> AssetDocument:
    return document.model_copy(update={"expire_at": at_ms})


def ingested(document: AssetDocument, media: MediaInfo, source: str) -> AssetDocument:
    """The source is known: its size, length and private key."""
    video = document.video
    changed = _video(
        document,
        status="Completed" if video.status == "Completed" else "Transcoding",
        duration=round(media.duration),
        duration_ms=round(media.duration * 1000),
        inputs=[Input(url=source)],
        video_codec="h264" if media.video else None,
        video_codecs=["h264"] if media.video else [],
        audio_codec="aac" if media.audio else None,
        output_urls=video.output_urls if media.video else {"aac": next(iter(video.output_urls.values()))},
    )
    return changed.model_copy(update={"bytes": media.size, "type": "video" if media.video else "audio"})


def published(
    document: AssetDocument,
    renditions: list[Rendition],
    *,
    duration_ms: int,
    segments: int,
    tracks: list[SubtitleTrack] | None = None,
    version: int = 1,
    edit: VideoEdit | None = None,
) -> AssetDocument:
    """A presentation is public. What comes late, from a job that was overtaken, changes nothing.

    A file that was exported of another part of it is no longer what is played.
    """
    if version < document.presentation:
        return document
    return _video(
        document.model_copy(update={"presentation": version}),
        renditions=renditions,
        tracks=tracks or [],
        rays=len(renditions),
        slices=segments,
        duration_ms=duration_ms,
        duration=round(duration_ms / 1000),
        edit=edit,
        mp4_url=document.video.mp4_url if _same_part(edit, document.video.edit) else None,
    )


def exported(document: AssetDocument, mp4_url: str, edit: VideoEdit | None) -> AssetDocument:
    """There is a file of what is played; one of another part, which came late, is not named."""
    return _video(document, mp4_url=mp4_url) if _same_part(edit, document.video.edit) else document


def _same_part(one: VideoEdit | None, other: VideoEdit | None) -> bool:
    return (one and (one.start_time, one.end_time)) == (other and (other.start_time, other.end_time))


def completed(document: AssetDocument, *, aside: bool = False) -> AssetDocument:
    if aside and _settled(document, aside):
        return _video(document, error=None)
    return _video(document, status="Completed", progress=100, error=None)


def failed(document: AssetDocument, error: Mapping[str, Any], *, aside: bool = False) -> AssetDocument:
    """A job failed: the error is shown; an asset that was complete stays so."""
    status = document.video.status if _settled(document, aside) else "Error"
    return _video(document, status=status, error=dict(error))


def cancelled(document: AssetDocument, *, aside: bool = False) -> AssetDocument:
    return document if _settled(document, aside) else _video(document, status="Cancelled")


def _settled(document: AssetDocument, aside: bool) -> bool:
    """Its status is not for this job to change."""
    return document.video.status == "Completed" or (aside and document.presentation > 0)


def deleted(document: AssetDocument, at_ms: int) -> AssetDocument:
    """Nothing is left of it but this document."""
    gone = _video(document, renditions=[], tracks=[], rays=0, slices=0, edit=None, mp4_url=None)
    return gone.model_copy(update={"deleted": at_ms, "expire_at": 0, "presentation": 0})


def stamped(document: AssetDocument, *, version: int, now_ms: int) -> AssetDocument:
    """The document as it is stored: with its version, and a `lastmod` that never goes back."""
    return document.model_copy(update={"version": version, "lastmod": max(now_ms, document.lastmod)})


def _video(document: AssetDocument, **changes: Any) -> AssetDocument:
    return document.model_copy(update={"video": document.video.model_copy(update=changes)})
