"""A small TrueType font, so that no test needs a font of the system."""

from __future__ import annotations

import struct
from pathlib import Path

_EM = 1000


def write_font(path: Path, characters: str) -> Path:
    """A font in which every one of the characters, up to U+FFFF, is a filled square, and all others an empty one."""
    square = [(100, 0), (900, 0), (900, 800), (100, 800)]
    hole = [(300, 200), (300, 600), (700, 600), (700, 200)]
    missing, filled = _glyph([square, hole]), _glyph([square])
    tables = {
        b"cmap": _cmap(sorted(map(ord, characters))),
        b"glyf": missing + filled,
        b"head": struct.pack(
            ">4L2H2Q4h2H3h", 0x10000, 0x10000, 0, 0x5F0F3CF5, 3, _EM, 0, 0, 0, 0, _EM, _EM, 0, 8, 2, 1, 0
        ),
        b"hhea": struct.pack(">L3hH11hH", 0x10000, 800, -200, 0, _EM, 0, 0, _EM, 1, *[0] * 7, 1),
        b"hmtx": struct.pack(">HhH", _EM, 0, 0),
        b"loca": struct.pack(">3L", 0, len(missing), len(missing + filled)),
        b"maxp": struct.pack(">L14H", 0x10000, 2, 8, 2, 0, 0, 2, *[0] * 8),
    }
    start, entries, data = 12 + 16 * len(tables), b"", b""
    for tag, table in sorted(tables.items()):
        entries += struct.pack(">4s3L", tag, 0, start + len(data), len(table))
        data += table + b"\0" * (-len(table) % 4)
    path.write_bytes(struct.pack(">L4H", 0x10000, len(tables), 64, 2, 16 * len(tables) - 64) + entries + data)
    return path


def _glyph(contours: list[list[tuple[int, int]]]) -> bytes:
    """Contours of four corners each, all on the curve, as 16-bit steps from corner to corner."""
    corners = [corner for contour in contours for corner in contour]
    ends = [4 * number + 3 for number in range(len(contours))]
    data = struct.pack(">5h", len(contours), 100, 0, 900, 800) + struct.pack(f">{len(ends)}HH", *ends, 0)
    data += b"\x01" * len(corners)
    for axis in range(2):
        values = [corner[axis] for corner in corners]
        data += b"".join(struct.pack(">h", here - before) for before, here in zip([0, *values], values, strict=False))
    return data + b"\0" * (-len(data) % 4)


def _cmap(codes: list[int]) -> bytes:
    """Format 4: a segment for each character, and the last one that the format asks for."""
    ends = [*codes, 0xFFFF]
    deltas = [(1 - code) % 65536 for code in codes] + [1]
    count = len(ends)
    body = struct.pack(f">{count}HH{count}H{count}H{count}H", *ends, 0, *ends, *deltas, *[0] * count)
    table = struct.pack(">7H", 4, 14 + len(body), 0, 2 * count, 2, 0, 2 * count - 2) + body
    return struct.pack(">2H2HL", 0, 1, 3, 1, 12) + table
