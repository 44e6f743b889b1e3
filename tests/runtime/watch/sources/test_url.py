from __future__ import annotations

import pytest

from edgex.runtime.watch.sources.url import public_name, shown_source

CAMERAS = [
    # Hikvision, Dahua, Axis, Reolink, Foscam, XMEye, Amcrest, Hanwha, TP-Link, Wyze, Unifi, D-Link, Bosch, Sony,
    # Vivotek, Panasonic, IPTV boxes, ONVIF proxies, and passwords with odd characters.
    ("rtsp://admin:s3cret@10.0.0.2:554/Streaming/Channels/101", "rtsp://10.0.0.2:554/..."),
    ("rtsp://admin:s3cret@10.0.0.2:554/cam/realmonitor?channel=1&subtype=0", "rtsp://10.0.0.2:554/..."),
    ("rtsp://10.0.0.2:554/cam/realmonitor?channel=1&username=admin&password=s3cret", "rtsp://10.0.0.2:554/..."),
    ("http://root:s3cret@10.0.0.2/axis-cgi/mjpg/video.cgi?camera=1", "http://10.0.0.2/..."),
    ("http://10.0.0.2/cgi-bin/api.cgi?cmd=Snap&channel=0&user=admin&password=s3cret", "http://10.0.0.2/..."),
    ("rtmp://10.0.0.2/bcs/channel0_main.bcs?channel=0&stream=0&user=admin&password=s3cret", "rtmp://10.0.0.2/..."),
    ("rtsp://admin:s3cret@10.0.0.2:554/h264Preview_01_main", "rtsp://10.0.0.2:554/..."),
    ("http://10.0.0.2:88/cgi-bin/CGIStream.cgi?cmd=GetMJStream&usr=admin&pwd=s3cret", "http://10.0.0.2:88/..."),
    ("http://127.0.0.1/videostream.cgi?usr=admin&pwd=s3cret", "http://127.0.0.1/..."),
    ("rtsp://127.0.0.1/user=admin&password=s3cret&channel=1&stream=0.sdp", "rtsp://127.0.0.1/..."),
    ("rtsp://10.0.0.2:554/user=admin_password=s3cret_channel=1_stream=0.sdp?real_stream", "rtsp://10.0.0.2:554/..."),
    ("rtsp://admin:s3cret@10.0.0.2:554/profile2/media.smp", "rtsp://10.0.0.2:554/..."),
    ("rtsp://cam-door:s3cret@cam.local:554/stream1", "rtsp://cam.local:554/stream1"),
    ("rtsps://10.0.0.2:7441/s3cretToken?enableSrtp", "rtsps://10.0.0.2:7441/..."),
    ("http://10.0.0.2/video/mjpg.cgi?key=s3cret", "http://10.0.0.2/..."),
    ("rtsp://10.0.0.2/rtsp_tunnel?p=0&h26x=4&pwd=s3cret", "rtsp://10.0.0.2/..."),
    ("rtsp://admin:s3cret@[fe80::1]:554/media/video1", "rtsp://[fe80::1]:554/.../video1"),
    ("rtsp://10.0.0.2/live.sdp#s3cret", "rtsp://10.0.0.2/..."),
    ("http://iptv.example.org:8080/live/someone/s3cret/index.m3u8", "http://iptv.example.org:8080/.../index.m3u8"),
    ("http://iptv.example.org:8080/someone/s3cret/1042", "http://iptv.example.org:8080/..."),
    ("https://example.org/a/door.MP4?token=s3cret", "https://example.org/.../door.MP4"),
    ("srt://10.0.0.2:9000?passphrase=s3cret", "srt://10.0.0.2:9000/..."),
    ("rtsp://admin:s3/cret@127.0.0.1/ch0", "rtsp://..."),
    ("rtsp://admin:12?s3cret@127.0.0.1/ch0", "rtsp://..."),
    ("rtsp://admin:12#s3cret@127.0.0.1/ch0", "rtsp://..."),
    ("rtsp://admin:p@s3cret@127.0.0.1/ch0", "rtsp://127.0.0.1/ch0"),
    ("rtsp://admin:1234/s3c@ret@127.0.0.1/ch0", "rtsp://..."),
    ("http://10.0.0.2/cgi?user=a@b.org&pwd=s3cret", "http://..."),
    ("HTTP://10.0.0.2/mjpeg", "HTTP://10.0.0.2/mjpeg"),
    ("rtsp://10.0.0.2", "rtsp://10.0.0.2"),
    ("rtsp://10.0.0.2/", "rtsp://10.0.0.2/"),
    ("s3cret", "..."),
]


@pytest.mark.parametrize("url, name", CAMERAS)
def test_what_may_be_said_of_a_url(url: str, name: str) -> None:
    assert public_name(url) == name
    for secret in ("s3", "cret", "admin", "token", "1234", "usr", "someone"):
        assert secret not in public_name(url)


@pytest.mark.parametrize(
    "source, shown",
    [
        ("pictures/2026-11-27T10:00.mp4", "pictures/2026-11-27T10:00.mp4"),
        ("a@home.mp4", "a@home.mp4"),
        (r"C:\pictures", r"C:\pictures"),
        ("camera:0", "camera:0"),
        ("rtsp://admin:s3cret@10.0.0.2/live", "rtsp://10.0.0.2/live"),
        (" rtsp://admin:s3cret@10.0.0.2/live", "rtsp://10.0.0.2/live"),
        ("rtsp:/admin:s3cret@10.0.0.2/live", "..."),
        ("rtsp:10.0.0.2/user=admin&password=s3cret", "..."),
        ("admin:s3cret@10.0.0.2/live", "..."),
        ("//admin:s3cret@10.0.0.2/live", "..."),
    ],
)
def test_what_a_message_may_repeat_of_a_source(source: str, shown: str) -> None:
    assert shown_source(source) == shown
