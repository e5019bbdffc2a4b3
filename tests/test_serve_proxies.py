"""Behind a proxy: names and ports, a prefix, who is believed, and other sites' scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import unit
from fastapi.testclient import TestClient
from numpy.random import default_rng
from serve_world import error_of, settings_for

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import InputError
from kinshelf.db.product import Product
from kinshelf.serve.app import create_app

pytestmark = pytest.mark.wide

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proxies") / "s.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        made = [Product(f"p{i}", f"thing {i}", category="ab"[i % 2]) for i in range(40)]
        shelf.upsert(made, unit(default_rng(0).standard_normal((40, 8))), None)
        shelf.relabel({"p1": "a"})
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    (tmp_path / "tokens").write_text(f"{TOKEN} write\n")
    return tmp_path / "tokens"


def opened(place: Path, asker: str = "127.0.0.1", **changes: Any) -> TestClient:
    app = create_app(settings_for(place, **changes))
    client = TestClient(app, base_url="http://127.0.0.1", client=(asker, 5000))
    client.follow_redirects = False
    return client


@pytest.fixture(scope="module")
def named(place: Path) -> Iterator[TestClient]:
    with opened(place, hosts=("shop.example", "shelf.example:8443")) as client:
        yield client


# ---- names and ports

HTTPS = "https://shop.example"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("shop.example", HTTPS, 200),
        ("shop.example:443", HTTPS, 200),  # nginx: $host:$server_port
        ("shop.example:80", HTTPS, 200),
        ("SHOP.example.", HTTPS, 200),
        ("127.0.0.1:8765", HTTPS, 200),  # nginx's default: the upstream
        ("localhost:8765", HTTPS, 200),
        ("shop.example", f"{HTTPS}:443", 200),
        ("shop.example:8443", f"{HTTPS}:8443", 200),
        ("shelf.example", "https://shelf.example:8443", 200),  # nginx: $host, which drops the port
        ("shop.example:443", "https://shop.example.evil", 403),
        ("shop.example", f"{HTTPS}:9999", 403),
        ("shelf.example", "https://shelf.example:9999", 403),
        ("127.0.0.1:8765", "https://evil.example", 403),
        ("127.0.0.1:8765", "http://127.0.0.1:9999", 403),
        ("127.0.0.1:8765", "null", 403),
        ("evil.example", "https://evil.example", 403),
        ("", "null", 403),
    ],
)  # fmt: skip
def test_a_named_hosts_pages_may_change_the_shelf_however_a_proxy_writes_host(
    named: TestClient, host: str, origin: str, status: int
) -> None:
    headers = {"host": host, "origin": origin}
    assert named.patch("/products/p1", json={"price": 2}, headers=headers).status_code == status


@pytest.mark.parametrize("name", ["https://shop.example", "shop.example/x", "a b", "x:port", ""])
def test_a_name_that_is_none_is_refused(place: Path, name: str) -> None:
    with pytest.raises(InputError, match="host name"):
        create_app(settings_for(place, hosts=(name,)))


# ---- a prefix

_ADDRESS = re.compile(r'(?:href|src|action|hx-get|hx-post)="([^"]*)"')
_PAGES = [
    "/", "/shelf", "/shelf?page=2", "/product?id=p1&done=2", "/compare?id=p1&id=p2", "/review",
    "/dashboard",
]  # fmt: skip


@pytest.mark.parametrize("given", ["/tools/shop", "tools/shop/"])
def test_every_address_of_every_page_begins_with_the_prefix(place: Path, given: str) -> None:
    with opened(place, root_path=given) as client:
        for page in _PAGES:
            for asked in (page, f"/tools/shop{page}"):  # a proxy takes it away, or passes it on
                shown = client.get(asked)
                assert shown.status_code == 200, asked
                found = {one for one in _ADDRESS.findall(shown.text) if not one.startswith("#")}
                assert len(found) > 8
                assert [one for one in found if not one.startswith("/tools/shop/")] == []
        assert client.get("/tools/shop").status_code == 200
        for link in found:
            answered = client.get(link.replace("&amp;", "&")).status_code
            assert answered in (200, 405), link


def test_redirects_and_what_htmx_is_told_have_the_prefix(place: Path, tokens: Path) -> None:
    with opened(place, root_path="/shop", token_file=tokens) as client:
        login = client.get("/shelf?page=2").headers["location"]
        assert login == "/shop/login?to=%2Fshelf%3Fpage%3D2"
        assert client.get("/shop/shelf?page=2").headers["location"] == login
        sent = {"token": TOKEN, "to": "/shelf?page=2"}
        answer = client.post("/shop/login", data=sent)
        assert answer.headers["location"] == "/shop/shelf?page=2"
        assert "Path=/shop/" in answer.headers["set-cookie"]
        told = client.post("/login", data=sent, headers={"hx-request": "true"})
        assert told.headers["hx-redirect"] == "/shop/shelf?page=2"
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/train", json={}, headers=bearer).headers["location"] == "/shop/jobs/1"
        document = client.get("/openapi.json", headers=bearer).json()
        assert document["servers"] == [{"url": "/shop"}]


def test_a_prefix_named_as_a_page_leads_to_both(place: Path) -> None:
    with opened(place, root_path="/shelf") as client:
        assert "<h1>What is it?" in client.get("/shelf/").text
        for whole in ("/shelf", "/shelf/shelf"):
            assert "<h1>The shelf" in client.get(whole).text


@pytest.mark.parametrize("prefix", ["/a/../b", "/a//b", "/a b", "/ä", "/a?b", "/products"])
def test_a_prefix_that_is_no_path_or_an_address_of_ours_is_refused(
    place: Path, prefix: str
) -> None:
    with pytest.raises(InputError, match=r"path|prefix"):
        create_app(settings_for(place, root_path=prefix))


def test_without_a_prefix_addresses_are_as_they_were(named: TestClient) -> None:
    assert 'href="/shelf"' in named.get("/").text
    assert "servers" not in named.get("/openapi.json").json()


# ---- who is believed

FORWARDED = {
    "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https",
    "x-forwarded-host": "shop.example", "x-forwarded-prefix": "/shop",
}  # fmt: skip


@pytest.mark.parametrize(
    ("asker", "believed"), [("10.0.0.2", True), ("10.9.0.1", True), ("10.10.0.1", False)]
)
def test_forwarded_headers_count_from_named_proxies_alone(
    place: Path, tokens: Path, asker: str, believed: bool
) -> None:
    changes = {"proxies": ("10.0.0.2", "10.9.1.1/16"), "token_file": tokens, "host": "0.0.0.0"}
    with opened(place, asker, rate=0.001, burst=2, **changes) as client:
        sent = {"token": TOKEN, "to": "/shelf"}
        answer = client.post("/login", data=sent, headers=FORWARDED | {"origin": HTTPS})
        if not believed:
            assert answer.status_code == 403
            assert client.get("/info", headers=FORWARDED).status_code == 401
            other = FORWARDED | {"x-forwarded-for": "203.0.113.10"}
            assert client.get("/info", headers=other).status_code == 401
            assert client.get("/info", headers=other).status_code == 429
            return
        assert answer.headers["location"] == "/shop/shelf"
        assert "Secure" in answer.headers["set-cookie"]
        assert client.get("/login", headers=FORWARDED).status_code == 200
        assert client.get("/login", headers=FORWARDED).status_code == 429
        other = FORWARDED | {"x-forwarded-for": "203.0.113.9, 203.0.113.10"}
        assert client.get("/login", headers=other).status_code == 200


def test_a_forwarded_host_is_judged_as_host_is(place: Path) -> None:
    with opened(place, "10.0.0.2", proxies=("10.0.0.2",), hosts=("shop.example",)) as client:
        for host, port, status in (
            ("shop.example", "443", 200), ("evil.example", "443", 403),
            ("shop.example, evil.example", "443", 403), ("shop.example", "8443", 200),
        ):  # fmt: skip
            sent = {"x-forwarded-host": host, "x-forwarded-port": port}
            sent["origin"] = f"https://{host.rpartition(', ')[2]}:{port}"
            changed = client.patch("/products/p1", json={"price": 2}, headers=sent)
            assert changed.status_code == status, host


def test_a_forwarded_prefix_is_a_path_or_nothing(place: Path) -> None:
    with opened(place, "10.0.0.2", proxies=("10.0.0.2",)) as client:
        for prefix in ("//evil.example", '/"><script>', "/..", "https://evil.example", "/"):
            shown = client.get("/", headers={"x-forwarded-prefix": prefix})
            assert 'href="/shelf"' in shown.text


@pytest.mark.parametrize("proxy", ["nginx", "*", "10.0.0.2:80", "10.0.0.0/99"])
def test_a_proxy_that_is_no_address_is_refused(place: Path, proxy: str) -> None:
    with pytest.raises(InputError, match="proxy's address"):
        create_app(settings_for(place, proxies=(proxy,)))


# ---- other sites' scripts

APP = "https://app.example:8080"


def test_scripts_of_no_other_site_read_anything_unless_it_is_named(named: TestClient) -> None:
    shown = named.get("/info", headers={"origin": APP})
    assert not [name for name in shown.headers if name.startswith("access-control")]
    asked = {"origin": APP, "access-control-request-method": "POST"}
    assert named.options("/classify", headers=asked).status_code == 405


def test_scripts_of_a_named_site_use_the_api_and_errors_reach_them(
    place: Path, tokens: Path
) -> None:
    with opened(place, cors=(APP + "/", "http://LOCALHOST:80"), token_file=tokens) as client:
        for origin, wanted in ((APP, APP), ("http://localhost", "http://localhost")):
            asked = {
                "origin": origin, "access-control-request-method": "PATCH",
                "access-control-request-headers": "authorization, content-type",
            }  # fmt: skip
            before = client.options("/products/p1", headers=asked)
            assert (before.status_code, before.headers["access-control-allow-origin"]) == (
                200, wanted,
            )  # fmt: skip
            sent = {"origin": origin, "authorization": f"Bearer {TOKEN}"}
            changed = client.patch("/products/p1", json={"price": 2}, headers=sent)
            assert changed.status_code == 200
            assert changed.headers["access-control-allow-origin"] == wanted
            assert "access-control-allow-credentials" not in changed.headers
            refused = client.get("/info", headers={"origin": origin})
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == wanted
        evil = {"origin": "https://evil.example", "authorization": f"Bearer {TOKEN}"}
        refused = client.patch("/products/p1", json={"price": 2}, headers=evil)
        assert error_of(refused)["type"] == "Forbidden"
        assert "access-control-allow-origin" not in refused.headers


def test_any_site_is_let_in_with_tokens_alone(place: Path, tokens: Path) -> None:
    with pytest.raises(InputError, match="token"):
        create_app(settings_for(place, cors=("*",)))
    with opened(place, cors=("*",), token_file=tokens) as client:
        sent = {"origin": APP, "authorization": f"Bearer {TOKEN}"}
        changed = client.patch("/products/p1", json={"price": 2}, headers=sent)
        assert changed.headers["access-control-allow-origin"] == "*"
        assert client.patch("/products/p1", json={}, headers={"origin": APP}).status_code == 401


@pytest.mark.parametrize("origin", ["app.example", "ftp://app.example", f"{APP}/page", "null", ""])
def test_an_origin_that_is_none_is_refused(place: Path, origin: str) -> None:
    with pytest.raises(InputError, match="origin"):
        create_app(settings_for(place, cors=(origin,)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--proxy", "nginx"], "proxy's address"),
        (["--name", "shop.example/x"], "host name"),
        (["--root-path", "/a/../b"], "is no path"),
        (["--root-path", "/products"], "choose another prefix"),
        (["--cors", "shop.example"], "is no origin"),
        (["--cors", "*"], "--token-file"),
    ],
)
def test_the_command_tells_a_wrong_option_in_a_line(
    place: Path, options: list[str], told: str
) -> None:
    ran = CliRunner().invoke(main, ["serve", "--shelf", str(place), *options])
    assert ran.exit_code == 3
    assert told in ran.stderr
    assert len(ran.stderr.splitlines()) <= 3
    assert "Traceback" not in ran.output
