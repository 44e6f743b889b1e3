from __future__ import annotations

import base64
from pathlib import Path

import pytest

from edgex.runtime import UsageError
from edgex.runtime.access import check_address, is_allowed, is_loopback, read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_address(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "camera.local", "", "localhost.example.org"])
def test_other_addresses_need_one(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="expected a token to listen at .* set EDGEX_TOKEN") as caught:
        check_address(host, None)
    assert caught.value.argument == "token_file"
    check_address(host, TOKEN)


def test_tokens_are_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token", {"EDGEX_TOKEN": "another" * 5}) == TOKEN
    assert read_token(None, {"EDGEX_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None


@pytest.mark.parametrize("text", ["", "short", "two words of a secret", "geheim-geheim-größer", f"{TOKEN}\n{TOKEN}"])
def test_unusable_tokens_are_refused_and_never_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    for path, environment in ((tmp_path / "token", {}), (None, {"EDGEX_TOKEN": text})):
        with pytest.raises(UsageError, match="expected a token of at least 16 ASCII characters") as caught:
            read_token(path, environment)
        assert not text or text not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    for name, reason in (("missing", "No such file"), (".", "Is a directory"), ("binary", "no text")):
        with pytest.raises(UsageError, match=f"expected a file with a token, found .*: {reason}"):
            read_token(tmp_path / name, {})


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic(f"anyone:{TOKEN}"), basic(f":{TOKEN}")]
)
def test_the_token_opens(header: str) -> None:
    assert is_allowed(header, TOKEN)


WRONG = [TOKEN[:-1], f"{TOKEN}0", "\xe9\ud800"]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", TOKEN, *(f"Bearer {token}" for token in WRONG), f"Digest {TOKEN}", "Basic %%%", basic(TOKEN)],
)
def test_anything_else_does_not(header: str) -> None:
    assert not is_allowed(header, TOKEN)
