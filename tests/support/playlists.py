"""HLS recordings, made by FFmpeg."""

from __future__ import annotations

from pathlib import Path

from streams import coloured


def write_playlist(folder: Path, segments: range, *, ended: bool = True) -> Path:
    """HLS (RFC 8216) of MPEG-TS segments with ten pictures and one second each."""
    import av

    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{segments.start}"]
    for segment in segments:
        name = f"{segment}.ts"
        with av.open(str(folder / name), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=10)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 1
            for number in range(10 * segment, 10 * segment + 10):
                frame = av.VideoFrame.from_ndarray(coloured(number), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        lines += ["#EXTINF:1.0,", name]
    path = folder / "live.m3u8"
    path.write_text("\n".join([*lines, *["#EXT-X-ENDLIST"][: int(ended)], ""]))
    return path
