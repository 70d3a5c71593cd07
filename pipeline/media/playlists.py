"""Whether a text is a live stream: the manifest of something that has not ended. Pure.

A source that is a playlist is refused in any case, because it names other files; that it is live says why asking again
with the same URL will not help. A multivariant playlist does not tell (RFC 8216 §4.3.4), and is only a playlist.
"""

from __future__ import annotations

import re

_DYNAMIC = re.compile(rb"<MPD\b[^>]*\btype\s*=\s*[\"']dynamic[\"']")
_ENDED = (b"#EXT-X-ENDLIST", b"#EXT-X-PLAYLIST-TYPE:VOD")


def is_live(manifest: bytes) -> bool:
    """`manifest` is the whole text.

    A media playlist of HLS without an end (RFC 8216 §4.3.3.4), or a dynamic MPD (ISO/IEC 23009-1 §5.3.1.2).
    """
    if b"#EXT-X-TARGETDURATION" in manifest:
        return not any(mark in manifest for mark in _ENDED)
    return bool(_DYNAMIC.search(manifest))
