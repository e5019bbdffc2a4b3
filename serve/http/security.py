"""Access: tokens with scopes, compared in constant time, and pages of this site alone.

A token file has one token a line, with its scope behind it (`write`, which may read too, is the
default):

    kFv5mJY3v0m2dD1nJ8eZ        write   Anna
    8yQ0C1pXfYw5sT7uR2aB        read

A name behind the scope stands in the history beside what that token changed.

A client sends `Authorization: Bearer TOKEN`; the page keeps it in the cookie `COOKIE` (HttpOnly,
SameSite=Strict). Without a token file only this machine can ask (see `ServeSettings.check`), and
whoever can, may do all.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fastapi import Request

from kinshelf.db.errors import InputError, SourceNotFound
from kinshelf.serve.base.asker import ASKER
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
    name: str | None = None


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file. Raises SourceNotFound or InputError, which never quote a token."""
    try:
        lines = _text(path.read_bytes()).splitlines()
    except FileNotFoundError:
        raise SourceNotFound(f"there is no token file {path}: make it, a token a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token file {path} cannot be read: {error}") from error
    rows = [(i, line.split(None, 2)) for i, line in enumerate(lines, 1)]
    tokens = [_token(path, i, row) for i, row in rows if row and not row[0].startswith("#")]
    if not tokens:
        raise InputError(f"the token file {path} holds no token: write one a line")
    return tokens


def _text(data: bytes) -> str:
    """Decodes what editors write: UTF-8, or UTF-16 as its first bytes tell, without them."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig")


def _token(path: Path, line: int, row: list[str]) -> Token:
    name, scope = row[0], row[1] if len(row) > 1 else "write"
    whose = row[2].strip() if len(row) > 2 else None
    if scope not in SCOPES or whose in SCOPES:
        raise InputError(
            f"{path}, line {line}: write TOKEN, or TOKEN and `read` or `write`, and a name if you"
            " like"
        )
    if len(name) < _SHORTEST:
        raise InputError(
            f"{path}, line {line}: the token has {len(name)} characters, at least {_SHORTEST} are"
            " needed: make one with `openssl rand -hex 24`"
        )
    return Token(_digest(name), SCOPES[scope], whose)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Judges requests by their token, host and origin.

    tokens: None means that whoever can ask, may. hosts: the names that a Host header may have, None
    for any. origins: whose pages may ask for changes beside the host's own; `ANY` for all.
    """

    def __init__(
        self,
        tokens: Sequence[Token] | None,
        hosts: frozenset[str] | None,
        origins: frozenset[Origin] = frozenset(),
    ) -> None:
        self._tokens = tokens
        self._hosts = hosts
        self._origins = origins

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

    def name(self, token: str | None) -> str | None:
        """The name of a token, None where it has none."""
        digest = _digest(token or "")
        same = (t for t in self._tokens or () if hmac.compare_digest(t.digest, digest))
        return next((known.name for known in same), None)

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
            raise Forbidden(f"this server does not answer for the host {name[:100]!r}")
        if origin is None or method in _SAFE or ANY in self._origins:
            return
        asked = origin_of(origin)
        # A host without a port has that of the page's scheme: proxies send `name` and `name:443`.
        if asked is None or asked not in self._origins | {origin_of(f"{asked.scheme}://{host}")}:
            raise Forbidden(f"a page of {origin[:100]!r} may not change anything here")


class Origin(NamedTuple):
    """Scheme, host and port of a page, in lower case, the port always given."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As browsers write it."""
        if self == ANY:
            return "*"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" * (self.port != _PORTS[self.scheme]))


ANY = Origin("*", "*", 0)
_PORTS = {"http": 80, "https": 443}


def origin_of(text: str) -> Origin | None:
    """Parse an origin; None for what is none of a web page."""
    try:
        parts = urlsplit(text)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    name = (parts.hostname or "").rstrip(".")
    return Origin(parts.scheme, name, port) if name and parts.scheme in _PORTS else None


def pages_of(host: str) -> frozenset[Origin]:
    """The origins of a host's own pages; with a port where it is given. Raises InputError."""
    bare = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    pages = {origin_of(f"{scheme}://{bare}") for scheme in _PORTS}
    if None in pages or set("/?#@ ") & set(host):
        raise InputError(
            f"{host!r} is no host name: write one such as shop.example, or shop.example:8443 where"
            " its address has a port"
        )
    return frozenset(filter(None, pages))


def origins_of(given: Sequence[str]) -> frozenset[Origin]:
    """The origins that somebody wrote, `*` for any. Raises InputError."""
    found = {text: ANY if text == "*" else origin_of(text) for text in given}
    for text, origin in found.items():
        if origin is None or (origin != ANY and urlsplit(text).path.strip("/")):
            raise InputError(f"{text!r} is no origin: write one such as https://shop.example")
    return frozenset(filter(None, found.values()))


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
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
    guard = request.app.state.guard
    guard.demand(request, "write")
    ASKER.set(guard.name(token_of(request)))
