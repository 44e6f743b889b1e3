"""What logs, pages and messages may say of a network source's URL: scheme, host, a harmless label, never a secret."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[\w.-]+)(:\d{1,5})?", re.IGNORECASE)
_LABEL = re.compile(
    r"(live|stream|streaming|channel|channels|ch|cam|camera|video|media|main|sub|preview|snapshot|mjpe?g|mjpg|h26[45]|"
    r"hls|index|playlist|image|axis|onvif|profile)[-_]?\d{0,3}",
    re.IGNORECASE,
)
"""A last part of a path that is a camera maker's word with a number; other words may be names or passwords."""
_VIDEO = re.compile(r"[a-z][a-z_-]{0,19}\d{0,3}\.(mp4|m4v|mkv|mov|avi|webm|m3u8|mjpg|mjpeg|ts)", re.IGNORECASE)

_ALMOST_URL = re.compile(r"(?!camera:)[a-z][a-z0-9+.-]+:|[^:]*:[^@]*@", re.IGNORECASE)
"""What was perhaps meant as a URL: "rtsp:/user:password@10.0.0.2/live", which lacks a slash."""


def public_name(url: str) -> str:
    """The URL without anything that may be secret: "rtsp://10.0.0.2:554/live", "http://10.0.0.2/..." or "rtsp://...".

    Cameras take passwords before the host, in the path and in the query, some with a slash or an @ in them. So only
    the scheme, the host with its port, and a last part of the path that is a well-known word are kept. Where an @
    stands behind the first slash, it is unknown what the host is, and the scheme alone is kept.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        return "..."
    host = parts["authority"].rpartition("@")[2]
    if "@" in parts["rest"] or not _HOST.fullmatch(host):
        return f"{parts['scheme']}://..."
    name = f"{parts['scheme']}://{host}"
    path, mark, _ = parts["rest"].partition("?")
    *before, last = path.split("/")
    known = _LABEL.fullmatch(last) or _VIDEO.fullmatch(last)
    label = last if known else "..." if last or mark else ""
    shown = [*(["..."] if any(before) and known else []), label]
    return name if not parts["rest"] else f"{name}/{'/'.join(shown)}"


def shown_source(source: str) -> str:
    """A source as a message may repeat it: a path as it is, a URL, also a mistyped one, as its `public_name`."""
    text = source.strip()
    return public_name(text) if _PARTS.match(text) or _ALMOST_URL.match(text) else source
