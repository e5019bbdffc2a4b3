"""The address of a shelf on an engine, as `--shelf` takes it.

    postgresql://user:password@host:5432/database?schema=toys
    milvus://user:password@host:19530/collection?db=default
    milvus-lite://folder/file.db/collection         relative; three slashes: absolute

`timeout=SECONDS` may stand in the query of each; what else stands in that of PostgreSQL goes to
libpq.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import xxhash

from kinshelf.db.errors import InputError
from kinshelf.db.text import without_password

POSTGRES, MILVUS, LITE = "postgresql", "milvus", "milvus-lite"
_SCHEMES = {"postgresql": POSTGRES, "postgres": POSTGRES, "milvus": MILVUS, "milvus-lite": LITE}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
TIMEOUT = 60.0
"""Seconds that an engine has for one answer."""
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a shelf on an engine.

    `url` is what the engine's client takes, `place` the schema or collection, `shown` the address
    without its password, `options` what else stood in the query.
    """

    engine: str
    url: str
    place: str
    shown: str
    timeout: float
    options: dict[str, str]

    @property
    def cache(self) -> Path:
        """The folder on this machine for the shelf's probes and downloaded pictures."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "kinshelf" / "engines" / xxhash.xxh3_64_hexdigest(self.shown.encode())


def is_engine(address: object) -> bool:
    """Whether it names an engine; anything without `://` is a directory."""
    return isinstance(address, str) and "://" in address


def parse_address(text: str) -> Address:
    """Raises InputError, with the forms there are, for an address that is none of them."""
    scheme, _, rest = text.partition("://")
    engine = _SCHEMES.get(scheme.lower())
    if engine is None:
        raise InputError(
            f"{scheme}:// is no engine that kinshelf knows: write postgresql://host/database,"
            " milvus://host:19530/collection or milvus-lite://file.db/collection"
        )
    try:
        return _lite(text, rest) if engine == LITE else _server(text, engine)
    except ValueError as error:
        raise InputError(
            f"{without_password(text)} cannot be read as an address: {error}"
        ) from error


def _server(text: str, engine: str) -> Address:
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query))
    timeout = _timeout(options)
    path = unquote(parts.path.strip("/"))
    if not parts.hostname and engine == MILVUS:
        raise ValueError("it names no host")
    if engine == POSTGRES:
        place = options.pop("schema", "kinshelf")
        # not urlunsplit, which leaves the slashes out where no host is named
        query = urlencode(options)
        url = f"postgresql://{parts.netloc}{parts.path}{'?' if query else ''}{query}"
    else:
        place = path or "kinshelf"
        secure = options.pop("secure", "").lower() in ("1", "true", "yes")
        host = parts.netloc.rpartition("@")[2]
        host = host if parts.port else f"{host.removesuffix(':')}:19530"
        url = f"{'https' if secure else 'http'}://{host}"
        if parts.username:
            options["token"] = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Address(engine, url, _checked(place), without_password(text), timeout, options)


def _lite(text: str, rest: str) -> Address:
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query))
    timeout = _timeout(options)
    file, _, place = path.rpartition("/")
    if path.endswith(".db"):
        file, place = path, "kinshelf"
    if not file.endswith(".db"):
        raise ValueError("the file's name must end with .db, as in milvus-lite://kin.db/toys")
    return Address(
        LITE, str(Path(file).absolute()), _checked(place),
        f"milvus-lite://{Path(file).absolute()}/{place}", timeout, options,
    )  # fmt: skip


def _timeout(options: dict[str, str]) -> float:
    text = options.pop("timeout", str(TIMEOUT))
    seconds = float(text)
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"timeout={text} is not within 0 and {_LONGEST:,} seconds")
    return seconds


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a schema or collection: use letters, digits and _, at most 48"
        )
    return name
