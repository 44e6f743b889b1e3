"""How a browser shows that it knows the token of a page: by a cookie, see `edgex.runtime.access` for the token.

The first request brings the token along, as `?token=...` of a link or from the field of the page that refuses it. It is
answered with a cookie and the address without the token, so that the token stays in neither history nor bookmarks. The
cookie is derived from the token and does not hold it. Programs send the header `Authorization` instead.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from edgex.runtime.access import is_allowed

_AGE = 30 * 24 * 3600
"""Seconds that a browser keeps the cookie."""


class _Headers(Protocol):
    def get(self, name: str, default: str, /) -> str: ...


class Access:
    """The one token of a page."""

    def __init__(self, token: str) -> None:
        self._token = token
        # Cookies are common to all ports of a host, so that pages with other tokens need other names.
        self._name = f"edgex_{self._derived('name')[:16]}"
        self._proof = self._derived("proof")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self._token.encode(), f"edgex watch: {purpose} of the cookie".encode(), "sha256").hexdigest()

    def is_token(self, given: str) -> bool:
        """Whether it is the token."""
        return is_allowed(f"Bearer {given}", self._token)

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer to a link with the token. The path is left to the browser: that of the link."""
        cookie = f"{self._name}={self._proof}; Max-Age={_AGE}; HttpOnly; SameSite=Strict"
        return {"Set-Cookie": cookie}

    def admits(self, headers: _Headers) -> bool:
        """Whether a request brings the cookie, or the token itself as a program does."""
        if is_allowed(headers.get("Authorization", ""), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("Cookie", "")).get(self._name)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(errors="replace"), self._proof.encode())
