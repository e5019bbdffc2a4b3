"""Access: tokens with scopes, compared in constant time, and pages of this site alone.

A token file has one token a line, with its scope behind it (`write`, which may read too, is the
default):

    kFv5mJY3v0m2dD1nJ8eZ        write
    8yQ0C1pXfYw5sT7uR2aB        read

A client sends `Authorization: Bearer TOKEN`; the page keeps it in the cookie `COOKIE` (HttpOnly,
SameSite=Strict). Without a token file only this machine can ask (see `ServeSettings.check`), and
whoever can, may do all.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import Request

from kinshelf.db.errors import InputError, SourceNotFound
from kinshelf.serve.base.errors import Forbidden, Unauthorised

COOKIE = "kinshelf_token"
SCOPES = {"read": frozenset({"read"}), "write": frozenset({"read", "write"})}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        " connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # under no-referrer a form of ours has the origin `null`
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with every answer: no script or style but the page's own files, whatever the data holds."""

_SHORTEST = 16
_SAFE = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its SHA-256, so that comparing takes as long for each, and what it may do."""

    digest: bytes
    scopes: frozenset[str]


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file. Raises SourceNotFound or InputError, which never quote a token."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise SourceNotFound(f"there is no token file {path}: make it, a token a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token file {path} cannot be read: {error}") from error
    rows = [(i, line.split()) for i, line in enumerate(lines, 1)]
    tokens = [_token(path, i, row) for i, row in rows if row and not row[0].startswith("#")]
    if not tokens:
        raise InputError(f"the token file {path} holds no token: write one a line")
    return tokens


def _token(path: Path, line: int, row: list[str]) -> Token:
    name, scope = row[0], row[1] if len(row) > 1 else "write"
    if len(row) > 2 or scope not in SCOPES:
        raise InputError(f"{path}, line {line}: write TOKEN, or TOKEN and `read` or `write`")
    if len(name) < _SHORTEST:
        raise InputError(
            f"{path}, line {line}: the token has {len(name)} characters, at least {_SHORTEST} are"
            " needed: make one with `openssl rand -hex 24`"
        )
    return Token(_digest(name), SCOPES[scope])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Judges requests by their token, host and origin; `tokens` None: whoever can ask, may."""

    def __init__(self, tokens: Sequence[Token] | None, hosts: frozenset[str] | None) -> None:
        self._tokens = tokens
        self._hosts = hosts

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry one."""
        return self._tokens is not None

    def scopes(self, token: str | None) -> frozenset[str]:
        """The scopes of a token; none for an unknown one. Every known token is compared."""
        if self._tokens is None:
            return SCOPES["write"]
        digest, granted = _digest(token or ""), frozenset[str]()
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                granted |= known.scopes
        return granted

    def demand(self, request: Request, scope: str) -> None:
        """Raises Unauthorised or Forbidden unless the request's token has the scope."""
        granted = self.scopes(token_of(request))
        if not granted:
            raise Unauthorised("a token is needed: send `Authorization: Bearer TOKEN`")
        if scope not in granted:
            raise Forbidden(f"this token may not {scope}: use one with the scope `{scope}`")

    def check_site(self, method: str, host: str, origin: str | None) -> None:
        """Raises Forbidden for what another site's page made the browser ask.

        `host` and `origin` are those headers. A name that was made to lead here (DNS rebinding)
        is not one of our hosts, and a form on another site has that site's origin.
        """
        name = _name(host)
        if self._hosts is not None and name not in self._hosts:
            raise Forbidden(f"this server does not answer for the host {name!r}")
        if origin is not None and method not in _SAFE and _authority(origin) != host.casefold():
            raise Forbidden(f"a page of {origin[:100]!r} may not change anything here")


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.casefold()
    except ValueError:
        return ""


def token_of(request: Request) -> str | None:
    """The token that a request carries, by header or by cookie."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.casefold() == "bearer" and token.strip():
        return token.strip()
    return request.cookies.get(COOKIE)


async def reader(request: Request) -> None:
    """A dependency: the request may read."""
    request.app.state.guard.demand(request, "read")


async def writer(request: Request) -> None:
    """A dependency: the request may write."""
    request.app.state.guard.demand(request, "write")
