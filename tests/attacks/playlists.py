"""Files that name other files or addresses: "media" that would have a careless reader open a second thing.

`attacks(bait)` makes them all, by name. They name only what `Bait` has laid out: files of a test's folder, and ports of
127.0.0.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from boxes import (
    FTYP,
    block,
    box,
    chunk,
    cluster,
    element,
    entry,
    full,
    matroska,
    movie,
    number,
    picture_entry,
    png,
    text,
    track,
    u16,
    u32,
)


@dataclass(frozen=True, kw_only=True)
class Bait:
    """What the attacks name."""

    folder: Path
    """Where they lie, beside `canary.mp4`, `canary.ts` and `canary.txt`."""
    tcp: int
    """A port that somebody listens on."""
    udp: int
    """A port that nobody has; the next one neither."""

    @property
    def movie(self) -> Path:
        return self.folder / "canary.mp4"

    @property
    def stream(self) -> Path:
        return self.folder / "canary.ts"

    @property
    def words(self) -> Path:
        return self.folder / "canary.txt"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.tcp}"


def attacks(bait: Bait) -> Mapping[str, bytes]:
    """Content by file name."""
    makers = (
        _concat,
        _hls,
        _hidden_hls,
        _dash,
        _addresses,
        _lists,
        _words,
        _movies,
        _matroska,
        _riff,
        _tagged,
        _pictures,
    )
    made: dict[str, bytes] = {}
    for maker in makers:
        for name, content in maker(bait):
            assert name not in made, name
            made[name] = content if isinstance(content, bytes) else content.encode()
    return made


Made = Iterator[tuple[str, str | bytes]]


def _concat(bait: Bait) -> Made:
    head = "ffconcat version 1.0\n"
    yield "near.ffconcat", f"{head}file canary.mp4\n"
    yield "far.ffconcat", f"{head}file file:{bait.movie}\n"
    yield "absolute.ffconcat", f"{head}file {bait.movie}\n"
    yield "web.ffconcat", f"{head}file {bait.web}/concat.mp4\n"
    yield "tcp.ffconcat", f"{head}file tcp://127.0.0.1:{bait.tcp}\n"
    yield "joined.ffconcat", f"{head}file concat:canary.ts|{bait.web}/x.ts\n"
    yield "part.ffconcat", f"{head}file subfile,,start,0,end,0,,:{bait.movie}\n"
    yield "cached.ffconcat", f"{head}file cache:{bait.movie}\n"
    yield "options.ffconcat", f"{head}file {bait.web}/x.mp4\noption protocol_whitelist file,http,tcp\noption safe 0\n"
    yield "streams.ffconcat", f"{head}stream\nexact_stream_id 0x100\nfile canary.ts\nduration 1\n"
    yield "marked.ffconcat", f"\ufeff{head}file canary.mp4\n"
    yield "late.ffconcat", f"\n \t\n{head}file canary.mp4\n"
    yield "dos.ffconcat", f"{head}file canary.mp4\n".replace("\n", "\r\n")
    yield "nul.ffconcat", f"{head}file canary.mp4\n\0\0\0\0"
    yield "list.txt", "file 'canary.mp4'\nfile 'canary.ts'\n"


def _media_playlist(*addresses: str, before: str = "", end: str = "#EXT-X-ENDLIST\n") -> str:
    segments = "".join(f"#EXTINF:1.0,\n{address}\n" for address in addresses)
    return f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n{before}{segments}{end}"


def _hls(bait: Bait) -> Made:
    near, far, web = "canary.ts", f"file://{bait.stream}", f"{bait.web}/hls.ts"
    yield "near.m3u8", _media_playlist(near)
    yield "far.m3u8", _media_playlist(far)
    yield "web.m3u8", _media_playlist(web)
    yield "words.m3u8", _media_playlist(f"file://{bait.words}")
    yield "joined.m3u8", _media_playlist(f"concat:{bait.web}/head|file://{bait.words}")
    yield "part.m3u8", _media_playlist(f"subfile,,start,0,end,64,,:{bait.words}")
    yield "secret.m3u8", _media_playlist(f"crypto:{bait.stream}")
    yield "data.m3u8", _media_playlist("data:video/mp2t;base64,R0AA")
    yield "live.m3u8", _media_playlist(near, web, end="")
    yield "range.m3u8", _media_playlist(near, before="#EXT-X-BYTERANGE:188@0\n")
    yield "key.m3u8", _media_playlist(near, before=f'#EXT-X-KEY:METHOD=AES-128,URI="{bait.web}/key"\n')
    yield "map.m3u8", _media_playlist("canary.mp4", before=f'#EXT-X-MAP:URI="{bait.web}/init.mp4"\n')
    yield "part-hint.m3u8", _media_playlist(near, end=f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{web}"\n')
    yield "master.m3u8", f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{bait.web}/child.m3u8\n"
    yield (
        "subtitles.m3u8",
        f'#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="s",URI="{bait.web}/s.m3u8"\n'
        f'#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES="s"\nnear.m3u8\n',
    )
    yield (
        "session.m3u8",
        f'#EXTM3U\n#EXT-X-SESSION-KEY:METHOD=AES-128,URI="{web}"\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{far}\n',
    )


def _hidden_hls(bait: Bait) -> Made:
    """The same behind what a look at the first bytes may stumble over."""
    plain = _media_playlist(f"file://{bait.stream}", f"{bait.web}/hidden.ts")
    yield "bom.m3u8", f"\ufeff{plain}"
    yield "wide.m3u8", b"\xff\xfe" + plain.encode("utf-16-le")
    yield "wide-big.m3u8", b"\xfe\xff" + plain.encode("utf-16-be")
    yield "blank.m3u8", "\n" * 5000 + plain
    yield "nul.m3u8", b"\0" + plain.encode()
    yield "nul-after.m3u8", plain.encode() + bytes(600)
    yield "tagged.m3u8", b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + plain.encode()
    yield "packet.m3u8", (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 4 + plain.encode()
    yield "movie.m3u8", FTYP + plain.encode()
    yield "free.m3u8", box(b"free", plain.encode()) + plain.encode()
    yield "latin.m3u8", "# é\n".encode("latin-1") + plain.encode()
    yield "comment.m3u8", f"#comment\n{plain}"


def _dash(bait: Bait) -> Made:
    body = (
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
        "<SegmentList><Initialization sourceURL='{url}'/><SegmentURL media='{url}'/></SegmentList>"
        "</Representation></AdaptationSet></Period></MPD>"
    )
    head = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="{kind}" mediaPresentationDuration="PT1S">'
    web, near = f"{bait.web}/dash.mp4", "canary.mp4"
    yield "web.mpd", head.format(kind="static") + body.format(url=web)
    yield "near.mpd", '<?xml version="1.0"?>\n' + head.format(kind="static") + body.format(url=near)
    yield "far.mpd", "<!-- a comment -->" + head.format(kind="static") + body.format(url=f"file://{bait.movie}")
    yield "live.mpd", "\ufeff" + head.format(kind="dynamic") + body.format(url=web)
    yield (
        "entity.mpd",
        f'<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY x SYSTEM "file://{bait.words}"><!ENTITY y SYSTEM "{web}">]>'
        + head.format(kind="static")
        + body.format(url="&x;&y;"),
    )
    yield "linked.mpd", f'<MPD xmlns:xlink="x"><Period xlink:href="{web}" xlink:actuate="onLoad"/></MPD>'
    yield "smooth.ismc", f'<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{web}"/></SmoothStreamingMedia>'
    yield "flash.f4m", f'<manifest xmlns="http://ns.adobe.com/f4m/1.0"><media url="{web}"/></manifest>'
    yield "package.cpl", f'<CompositionPlaylist xmlns="x"><Id>{web}</Id></CompositionPlaylist>'


def _addresses(bait: Bait) -> Made:
    sdp = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {bait.udp} RTP/AVP 33\r\n"
    rtsp = f"rtsp://127.0.0.1:{bait.tcp}/x"
    yield "listen.sdp", sdp
    yield "marked.sdp", f"\ufeff{sdp}"
    yield "late.sdp", f"\r\n{sdp}"
    yield "nul.sdp", sdp.encode() + bytes(64)
    yield "control.sdp", f"{sdp}a=control:{rtsp}\r\n"
    yield "redirect.mov", f"RTSPtext\r\n{rtsp}\r\n"
    yield "redirect.rtsp", rtsp
    yield "real.ram", f"{rtsp}\npnm://127.0.0.1:{bait.tcp}/x\n"
    yield "windows.asx", f'<ASX version="3.0"><Entry><Ref href="{bait.web}/asx"/></Entry></ASX>'
    yield "reference.asf", f"[Reference]\r\nRef1={bait.web}/asf\r\nRef2=mms://127.0.0.1:{bait.tcp}/x\r\n"
    yield (
        "quicktime.qtl",
        f'<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?><embed src="{rtsp}"/>',
    )


def _lists(bait: Bait) -> Made:
    web = f"{bait.web}/list.mp4"
    yield "plain.m3u", f"{bait.movie}\n{web}\n"
    yield "winamp.pls", f"[playlist]\nFile1={web}\nFile2={bait.movie}\nNumberOfEntries=2\nVersion=2\n"
    yield (
        "shared.xspf",
        f'<playlist version="1" xmlns="x"><trackList><track><location>{web}</location></track></trackList></playlist>',
    )
    yield "tracks.cue", 'FILE "canary.mp4" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'
    yield "smile.smil", f'<smil><body><video src="{web}"/></body></smil>'
    yield "script.avs", f'AVISource("{bait.movie}")\n'
    yield "script.vpy", f'import vapoursynth\nopen("{bait.words}").read()\n'
    yield "graph.lavfi", f"movie={bait.movie}[out0]\n"
    yield "metadata.ffmeta", f";FFMETADATA1\ntitle={bait.web}\n"
    yield (
        "drawing.svg",
        f'<svg xmlns:xlink="x"><image xlink:href="{web}"/><image xlink:href="file://{bait.words}"/></svg>',
    )
    yield "shortcut.url", f"[InternetShortcut]\nURL={web}\n"
    yield "stream.strm", f"{web}\n"


def _words(bait: Bait) -> Made:
    yield "ted.json", '{"captions":[{"duration":1,"content":"x","startOfParagraph":false,"startTime":0}]}'
    yield (
        "styled.ass",
        f"[Script Info]\nScriptType: v4.00+\n[Fonts]\nfontname: {bait.words}\n"
        "[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,,,,,,x\n",
    )
    yield "styled.vtt", f"WEBVTT\n\nSTYLE\n@import url({bait.web}/style.css)\n\n00:00.000 --> 00:01.000\nx\n"
    yield "linked.srt", f'1\n00:00:00,000 --> 00:00:01,000\n<img src="{bait.web}/x">\n'
    yield (
        "canary.idx",
        "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
        "timestamp: 00:00:00:000, filepos: 000000000\n",
    )
    yield "frames.sub", "{0}{25}x\n{26}{50}y\n"
    yield "mpl2.txt", "[0][10]x\n[11][20]y\n"
    yield "words.smi", f'<SAMI><BODY><SYNC Start=0><P><img src="{bait.web}/x"></P></SYNC></BODY></SAMI>'
    yield "words.rt", f'<window><time begin="0"/><a href="{bait.web}">x</a></window>'
    yield "words.ttml", f'<tt xmlns="http://www.w3.org/ns/ttml"><head><metadata href="{bait.web}"/></head><body/></tt>'
    yield "captions.scc", "Scenarist_SCC V1.0\n\n00:00:00:00\t9420 9420\n"
    yield "art.ans", "\x1b[2J\x1b[31mred\x1b[0m" * 40
    yield "art.xb", b"XBIN\x1a" + struct.pack("<HHBB", 8, 8, 16, 0) + bytes(128)


def _movies(bait: Bait) -> Made:
    """Movies whose samples, or all of which, lie elsewhere (ISO/IEC 14496-12 §8.7.2, QuickTime File Format)."""
    place = str(bait.movie).encode()
    references = {
        "url-web": full(b"url ", f"{bait.web}/dref.mp4".encode() + b"\0"),
        "url-far": full(b"url ", f"file://{bait.movie}".encode() + b"\0"),
        "urn": full(b"urn ", b"x\0" + f"{bait.web}/urn".encode() + b"\0"),
        "alias-near": full(b"alis", _alias(b"canary.mp4", b"canary.mp4")),
        "alias-far": full(b"alis", _alias(b"canary.mp4", place)),
        "resource": full(b"rsrc", _alias(b"canary.mp4", place)),
    }
    for name, reference in references.items():
        made = track(
            picture_entry(b"mp4v", 16, 16), sizes=u32(0, 1, 100), chunks=u32(1, 40), reference=reference, size=(16, 16)
        )
        yield f"{name}.mov", FTYP + movie(made)
    for name, address in (
        ("web", f"{bait.web}/ref.mov"),
        ("near", "canary.mp4"),
        ("rtsp", f"rtsp://127.0.0.1:{bait.tcp}/"),
    ):
        data = address.encode() + b"\0"
        link = full(b"rdrf", b"url ", u32(len(data)), data)
        yield f"reference-{name}.mov", box(b"moov", box(b"rmra", box(b"rmda", link)))


def _alias(name: bytes, path: bytes) -> bytes:
    """A Mac OS alias record, as mov keeps them: 150 bytes, then pairs of kind and value (2: the absolute path)."""
    head = bytearray(150)
    head[4:6] = u16(150 + 4 + len(path) + 4)
    head[10:38] = (bytes([6]) + b"volume").ljust(28, b"\0")
    head[50:114] = (bytes([len(name)]) + name).ljust(64, b"\0")
    head[130:134] = u16(1, 1)
    pairs = u16(2, len(path)) + path + b"\0" * (len(path) % 2)
    return bytes(head) + pairs + u16(0xFFFF, 0)


def _matroska(bait: Bait) -> Made:
    picture = entry(1, "V_MJPEG", 1, element(0xE0, number(0xB0, 16), number(0xBA, 16)))
    sound = entry(2, "A_PCM/INT/LIT", 2, element(0xE1, number(0x9F, 1)))
    tracks, media = element(0x1654AE6B, picture, sound), cluster(0, block(2, bytes(400)))
    linking = text(0x3E83BB, "canary.mkv") + element(0x3EB923, bytes(16)) + text(0x3C83AB, "canary.mkv")
    yield "linked.mkv", matroska(tracks, media, linking=linking, uid=element(0x73A4, bytes(15) + b"1"))
    listed = _media_playlist(f"{bait.web}/attached.ts").encode()
    attached = element(
        0x61A7, text(0x466E, "../../x.m3u8"), text(0x4660, "application/x-mpegurl"), element(0x465C, listed)
    )
    yield "attached.mkv", matroska(tracks, element(0x1941A469, attached), media)
    atom = element(0xB6, number(0x73C4, 1), number(0x91, 0), element(0x6E67, b"1" * 16), number(0x6EBC, 1))
    yield "chapters.mkv", matroska(tracks, element(0x1043A770, element(0x45B9, number(0x45DD, 1), atom)), media)
    styled = text(0x63A2, f"[Script Info]\n[Fonts]\nfontname: {bait.words}\n")
    yield "styled.mkv", matroska(element(0x1654AE6B, sound, entry(3, "S_TEXT/ASS", 17, styled)), media)
    tags = element(0x1254C367, element(0x7373, element(0x67C8, text(0x45A3, "URL"), text(0x4487, f"{bait.web}/tag"))))
    yield "tagged.mkv", matroska(tracks, tags, media)
    odd = entry(1, "V_MS/VFW/FOURCC", 1, element(0xE0, number(0xB0, 16), number(0xBA, 16)))
    yield "playlist-frames.mkv", matroska(element(0x1654AE6B, odd), cluster(0, block(1, listed)))


def _riff(bait: Bait) -> Made:
    listed = _media_playlist(f"file://{bait.words}", f"{bait.web}/gab2.ts", before="#EXT-X-BYTERANGE:64@0\n").encode()
    yield "subtitles.avi", _avi(_gab2(listed))
    yield "concat-subtitles.avi", _avi(_gab2(f"ffconcat version 1.0\nfile {bait.web}/x\n".encode()))
    yield "styled-subtitles.avi", _avi(_gab2(f"[Script Info]\n[Fonts]\nfontname: {bait.words}\n".encode()))
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    yield (
        "listed.wav",
        chunk(b"RIFF", b"WAVE", chunk(b"fmt ", form), chunk(b"data", bytes(8000)), chunk(b"plst", listed)),
    )
    yield "playlist.wav", chunk(b"RIFF", b"WAVE", chunk(b"fmt ", form), chunk(b"data", listed))
    wanted = struct.pack("<HHIIHHHH", 0x2000, 1, 8000, 8000, 1, 0, 2, 0)
    yield "odd.wav", chunk(b"RIFF", b"WAVE", chunk(b"fmt ", wanted), chunk(b"data", listed))
    yield "motion.smjpeg", b"\0\nSMJPEG" + u32(0, 1000) + listed


def _gab2(data: bytes) -> bytes:
    name = "x.m3u8\0".encode("utf-16-le")
    return b"GAB2\0" + struct.pack("<HI", 2, len(name)) + name + struct.pack("<HI", 4, len(data)) + data


def _avi(subtitle: bytes) -> bytes:
    head = chunk(b"avih", struct.pack("<14I", 40_000, 0, 0, 0, 1, 0, 1, 0, 16, 16, 0, 0, 0, 0))
    about = b"txts" + bytes(4) + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 25, 0, 1, 0, 0, 0, 0, 0, 16, 16)
    stream = chunk(b"LIST", b"strl", chunk(b"strh", about), chunk(b"strf", bytes(40)))
    return chunk(
        b"RIFF", b"AVI ", chunk(b"LIST", b"hdrl", head, stream), chunk(b"LIST", b"movi", chunk(b"00tx", subtitle))
    )


def _tagged(bait: Bait) -> Made:
    """Tags that hold an address in place of a picture: the type of the picture is `-->`."""
    address = f"{bait.web}/cover.png".encode()
    picture = b"\0-->\0\x03\0" + address
    frame = b"APIC" + u32(len(picture)) + b"\0\0" + picture
    listed = _media_playlist(f"file://{bait.stream}").encode()
    for name, after in (("cover", b"\xff\xfb\x90\x00" + bytes(413)), ("playlist", listed)):
        yield f"{name}.mp3", b"ID3\x03\0\0" + bytes([0, 0, len(frame) >> 7, len(frame) & 127]) + frame + after
    linked = u32(3, 3) + b"-->" + u32(0, 16, 16, 24, 0, len(address)) + address
    stream = bytes([0, 0, 0, 34]) + u16(4096, 4096) + bytes(6) + b"\x0b\xb8\x01\xf0" + bytes(20)
    sheet = b"\x05" + (396).to_bytes(3, "big") + b"canary.mp4".ljust(396, b"\0")
    yield "cover.flac", b"fLaC" + stream + sheet + b"\x86" + len(linked).to_bytes(3, "big") + linked
    bones = b"fishead\0" + struct.pack("<HH", 4, 0) + f"{bait.web}/skeleton".encode().ljust(68, b"\0")
    yield "skeleton.ogg", b"OggS\0\x02" + bytes(8) + u32(1, 0) + bytes(4) + bytes([1, len(bones)]) + bones
    essence = (
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02\x04\x00" + b"\x83" + len(address).to_bytes(3, "big")
    )
    yield "essence.mxf", essence + address
    yield "general.gxf", b"\0\0\0\0\x01\xbc" + u32(16 + len(address)) + bytes(4) + b"\xe1\xe2" + address


def _pictures(bait: Bait) -> Made:
    yield "picture%03d.png", png(16, 16)
    yield "picture%d.jpg", b"\xff\xd8\xff\xe0" + bytes(64)
    yield "*.png", png(16, 16)
    yield "scene%d.mp4", f"#EXTM3U\n{bait.web}/x\n"
