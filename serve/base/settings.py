"""Settings of the server: its address, tokens and limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from kinshelf.db.errors import InputError
from kinshelf.serve.base.prefix import is_prefix


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The options of `kinshelf serve`.

    `token_file`: see `security.read_tokens`; without one, only loopback addresses may be listened
    on. Times are seconds, sizes bytes. `hosts`, `root_path`, `proxies` and `cors` are those of
    `--name`, `--root-path`, `--proxy` and `--cors`. `lock_wait`: how long a write waits for another
    process's. `max_text`: of a body without a picture. `rate` requests a second from one address,
    `burst` at once. `at_once` requests are worked on, `queue` more may wait; what comes on top is
    sent away with 429.
    """

    shelf: Path
    host: str = "127.0.0.1"
    port: int = 8765
    token_file: Path | None = None
    hosts: tuple[str, ...] = ()
    root_path: str = ""
    proxies: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    allow_private_hosts: bool = False
    max_body: int = 25_000_000
    max_text: int = 1_000_000
    max_pixels: int = 40_000_000
    decode_seconds: float = 10.0
    decode_memory: int = 1_500_000_000
    decoders: int = 2
    fetch_seconds: float = 10.0
    request_seconds: float = 60.0
    lock_wait: float = 5.0
    rate: float = 50.0
    burst: int = 200
    at_once: int = 16
    queue: int = 64
    max_batch: int = 32
    drain_seconds: float = 30.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def prefix(self) -> str:
        """`root_path` as addresses begin, such as `/shop`, or "". Raises InputError."""
        found = self.root_path and "/" + self.root_path.strip("/")
        if found not in ("", "/") and not is_prefix(found):
            raise InputError(f"{self.root_path!r} is no path: write one such as /shop")
        return found.rstrip("/")

    @property
    def networks(self) -> list[str]:
        """The addresses of `proxies`. Raises InputError."""
        try:
            return [str(ipaddress.ip_network(one, strict=False)) for one in self.proxies]
        except ValueError as error:
            raise InputError(f"{error}: write a proxy's address or network") from error

    def check(self) -> None:
        """Raises InputError for an address that others can reach, but no tokens, and for a prefix
        or a proxy that is none."""
        if not self.loopback and self.token_file is None:
            raise InputError(
                f"{self.host} can be reached from other machines: give --token-file, or listen on"
                " 127.0.0.1"
            )
        _ = self.prefix, self.networks
