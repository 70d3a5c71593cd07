"""Where a door leads: both manifests parsed by libraries that are not ours, every address looked up among the keys."""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator
from urllib.parse import unquote

import m3u8

_DASH = "{urn:mpeg:dash:schema:mpd:2011}"


def leads_nowhere(key: str, text: str, objects: Collection[str]) -> Iterator[str]:
    """What is wrong with the door `key`: it cannot be parsed, or something that it names is not there."""
    try:
        addresses = _hls(text) if key.endswith(".m3u8") else _dash(text)
    except (ValueError, ElementTree.ParseError) as error:
        yield f"{key} cannot be parsed: {error}"
        return
    if not addresses:
        yield f"{key} leads nowhere"
    for address in addresses:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(key), unquote(address)))
        if target not in objects:
            yield f"{key} names {address}, which is not there"


def _hls(text: str) -> list[str]:
    master = m3u8.loads(text)
    if not master.is_variant:
        raise ValueError("no master playlist")
    medias = [media.uri for media in master.media if media.uri]
    return [*medias, *(variant.uri for variant in master.playlists), *(each.uri for each in master.iframe_playlists)]


def _dash(text: str) -> list[str]:
    root = ElementTree.fromstring(text)
    if root.tag != f"{_DASH}MPD":
        raise ValueError(f"no MPD but {root.tag}")
    found = [base.text for base in root.iter(f"{_DASH}BaseURL")]
    found += [each.get("media") for each in root.iter(f"{_DASH}SegmentURL")]
    found += [each.get("sourceURL") for each in root.iter(f"{_DASH}Initialization")]
    for template in root.iter(f"{_DASH}SegmentTemplate"):
        found += [template.get("initialization")]
        found += [template.get("media", "").replace("$Time$", str(time)) for time in _times(template)]
    return [address for address in found if address]


def _times(template: ElementTree.Element) -> Iterator[int]:
    """The start of every segment of its timeline, in ticks."""
    time = 0
    for run in template.iter(f"{_DASH}S"):
        time = int(run.get("t", time))
        for _ in range(int(run.get("r", 0)) + 1):
            yield time
            time += int(run.get("d", 0))
