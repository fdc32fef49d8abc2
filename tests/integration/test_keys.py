"""API keys over HTTP: who is let in, to what, how often, and what is kept of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.access import tokens
from app.access.scopes import ROUTES, KeyScope, allows
from app.cli import app
from app.settings import Settings
from tests.support.server import LiveServer, picture

ADMIN = "the first key of this test server"
SCOPES: tuple[KeyScope, ...] = ("infer", "edit", "admin")

_names = itertools.count()


def settings_of(checkpoint: Path, data_dir: Path, **fields: Any) -> Settings:
    return Settings.load(model=str(checkpoint), data_dir=data_dir, device="cpu", **fields)


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data_dir = tmp_path_factory.mktemp("data")
    with LiveServer(settings_of(tiny_checkpoint, data_dir, admin_key=ADMIN)) as live:
        yield live


def with_key(server: LiveServer, token: str | None) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=120, trust_env=False)


Connect = Callable[[str | None], httpx.Client]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def connect(server: LiveServer) -> Iterator[Connect]:
    """A client that sends this token."""
    with contextlib.ExitStack() as stack:
        yield lambda token: stack.enter_context(with_key(server, token))


@pytest.fixture
def admin(connect: Connect) -> httpx.Client:
    return connect(ADMIN)


@pytest.fixture
def make(admin: httpx.Client) -> Make:
    def create(scope: str, **fields: Any) -> dict[str, Any]:
        body = {"label": f"key {next(_names)}", "scope": scope} | fields
        response = admin.post("/admin/keys", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    return create


def correction(image: str, **fields: Any) -> dict[str, Any]:
    return {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_every_route_asks_for_what_is_listed(connect: Connect, make: Make) -> None:
    schema = connect(ADMIN).get("/openapi.json").json()
    described = {
        (method.upper(), path) for path, methods in schema["paths"].items() for method in methods
    }
    assert described <= {(method, path.replace(":path", "")) for method, path in ROUTES}
    clients = {scope: connect(make(scope)["token"]) for scope in SCOPES}
    nobody, wrong = connect(None), connect("ek_wrong")
    for (method, template), need in ROUTES.items():
        path = template.replace("{file:path}", "index.html")
        path = re.sub(r"\{\w+(:path)?\}", "01J00000000000000000000000", path)
        body = b"{}" if method == "POST" else None
        for client in (nobody, wrong):
            response = client.request(method, path, content=body)
            if need == "open":
                assert response.status_code == 200, path
            else:
                assert code(response) == (401, "invalid_api_key"), path
                assert response.headers["www-authenticate"] == "Bearer"
        if need == "open":
            continue
        for scope, client in clients.items():
            response = client.request(method, path, content=body)
            assert response.status_code not in (401, 500), path
            assert (response.status_code == 403) == (not allows(scope, need)), (path, scope)


def test_a_route_that_is_not_listed_is_closed_to_all(
    connect: Connect, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(ROUTES, ("GET", "/versions"))
    assert code(admin.get("/versions")) == (403, "insufficient_scope")
    assert code(connect(None).get("/no/such/path")) == (401, "invalid_api_key")
    assert code(admin.get("/no/such/path")) == (404, "route_not_found")
    assert code(admin.delete("/edits")) == (405, "method_not_allowed")


def test_the_label_is_in_the_audit_trail(connect: Connect, make: Make, image: str) -> None:
    key = make("admin", label="ann@example.org")
    client = connect(key["token"])
    edit = client.post("/edits", json=correction(image)).json()
    assert edit["created_by"] == "ann@example.org"
    client.post(f"/admin/edits/{edit['id']}/rollback")
    history = client.get(f"/edits/{edit['id']}").json()["history"]
    assert [event["actor"] for event in history] == ["ann@example.org"] * 2


def test_a_revoked_key_is_refused_at_once(
    connect: Connect, admin: httpx.Client, make: Make
) -> None:
    key = make("infer")
    client = connect(key["token"])
    assert client.get("/versions").status_code == 200
    revoked = admin.post(f"/admin/keys/{key['id']}/revoke").json()
    assert revoked["revoked_by"] == "admin"
    assert code(client.get("/versions")) == (401, "invalid_api_key")
    assert admin.post(f"/admin/keys/{key['id']}/revoke").json() == revoked
    assert code(admin.post("/admin/keys/none/revoke")) == (404, "key_not_found")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic YTpi", "Bearer a b", "Bearer ek_0_0_0", "x" * 4000]
)
def test_what_is_no_key(connect: Connect, header: str) -> None:
    response = connect(None).get("/versions", headers={"Authorization": header})
    assert code(response) == (401, "invalid_api_key")
    assert response.json()["error"]["type"] == "authentication_error"


def test_guesses_cost_no_slow_digest(
    connect: Connect, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make("infer")["token"]
    slow = tokens.slow_digest
    made: list[str] = []

    def counted(token: str, salt: bytes) -> bytes:
        made.append(token)
        return slow(token, salt)

    monkeypatch.setattr(tokens, "slow_digest", counted)
    kind, key_id, _, tag = token.split("_")
    client = connect(None)
    for number in range(200):
        guess = "_".join([kind, key_id, f"{number:064x}", tag])
        response = client.get("/versions", headers={"Authorization": f"Bearer {guess}"})
        assert response.status_code == 401
    assert made == []
    for _ in range(3):
        client.get("/versions", headers={"Authorization": f"Bearer {token}"})
    assert made == [token]


def test_a_token_is_nowhere_kept(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = settings_of(tiny_checkpoint, tmp_path / "data")
    with LiveServer(settings) as server:
        body = {"label": "first", "scope": "admin"}
        token = server.client.post("/admin/keys", json=body).json()["token"]
        assert code(server.client.get("/versions")) == (401, "invalid_api_key")
        with with_key(server, token) as client:
            assert client.get("/versions").status_code == 200
            listed = client.get("/admin/keys").json()["data"]
        assert [key["label"] for key in listed] == ["first"]
        assert token not in str(listed)
    secret = token.split("_")[2]
    assert secret not in caplog.text
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()
    with LiveServer(settings) as server:
        with with_key(server, token) as client:
            assert client.get("/versions").status_code == 200
        assert code(server.client.get("/versions")) == (401, "invalid_api_key")


def test_nobody_locks_himself_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with LiveServer(settings_of(tiny_checkpoint, tmp_path)) as server:
        refused = server.client.post("/admin/keys", json={"label": "a", "scope": "edit"})
        assert code(refused) == (400, "invalid_field")
        first = server.client.post("/admin/keys", json={"label": "a", "scope": "admin"}).json()
        with with_key(server, first["token"]) as client:
            assert code(client.post(f"/admin/keys/{first['id']}/revoke")) == (409, "last_admin_key")
            again = client.post("/admin/keys", json={"label": "a", "scope": "infer"})
            assert code(again) == (409, "key_label_taken")


@pytest.mark.parametrize("label", ["", "local", "admin", " a", "a\nb", "é", "x" * 65])
def test_labels_that_may_be_none(admin: httpx.Client, label: str) -> None:
    response = admin.post("/admin/keys", json={"label": label, "scope": "infer"})
    assert code(response) == (400, "invalid_field")
    assert response.json()["error"]["param"] == "label"


def test_requests_a_minute(connect: Connect, make: Make) -> None:
    client = connect(make("infer", requests_per_minute=3)["token"])
    assert [client.get("/versions").status_code for _ in range(3)] == [200] * 3
    refused = client.get("/versions")
    assert code(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 20


def test_edits_a_day_are_counted_one_by_one(connect: Connect, make: Make) -> None:
    client = connect(make("edit", edits_per_day=3)["token"])
    many = {"edits": [correction(picture(n)) for n in range(4)]}
    assert code(client.post("/edits/batch", json=many)) == (429, "rate_limited")
    assert client.post("/edits/batch", json={"edits": many["edits"][:2]}).status_code == 200
    assert client.post("/edits", json=many["edits"][2]).status_code == 201
    assert code(client.post("/edits", json=many["edits"][3])) == (429, "rate_limited")
    assert client.get("/versions").status_code == 200


def test_an_idempotency_key_belongs_to_its_api_key(
    connect: Connect, make: Make, image: str
) -> None:
    one, two = (connect(make("edit")["token"]) for _ in range(2))
    same = {"Idempotency-Key": "monday"}
    first = one.post("/edits", json=correction(image), headers=same)
    other = two.post("/edits", json=correction(image, target="red"), headers=same)
    assert (first.status_code, other.status_code) == (201, 201)
    again = one.post("/edits", json=correction(image), headers=same)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content


def test_only_an_admin_replaces_the_edit_of_another(
    connect: Connect, make: Make, image: str
) -> None:
    one, two = (connect(make("edit")["token"]) for _ in range(2))
    boss = connect(make("admin")["token"])
    theirs = one.post("/edits", json=correction(image)).json()["id"]
    replacing = correction(picture(77), supersedes=[theirs])
    assert code(two.post("/edits", json=replacing)) == (403, "insufficient_scope")
    assert boss.post("/edits", json=replacing).status_code == 201
    assert one.post("/edits", json=replacing).status_code == 201


def test_with_keys_any_host_name_will_do_and_no_foreign_page(admin: httpx.Client) -> None:
    assert admin.get("/versions", headers={"Host": "errata.example.org"}).status_code == 200
    foreign = {"Host": "errata.example.org", "Origin": "https://evil.example"}
    assert code(admin.get("/versions", headers=foreign)) == (403, "host_not_allowed")
    nobody = {"Host": ":80", "Origin": "null"}  # neither names a host, and they are not the same
    assert code(admin.get("/versions", headers=nobody)) == (403, "host_not_allowed")
    own = {"Host": "errata.example.org", "Origin": "https://errata.example.org"}
    assert admin.get("/versions", headers=own).status_code == 200


def test_keys_by_command(
    connect: Connect, server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def errata(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["keys", *arguments, "--url", server.url])
        assert result.exit_code == 0, result.output
        return result.stdout

    monkeypatch.setenv("ERRATA_API_KEY", ADMIN)
    token = errata("create", "support desk", "--scope", "edit", "--edits-per-day", "9").strip()
    client = connect(token)
    assert client.get("/versions").status_code == 200
    line = next(line for line in errata("list").splitlines() if "support desk" in line)
    assert "is revoked" in errata("revoke", line.split()[0])
    assert client.get("/versions").status_code == 401
    assert "revoked" in next(line for line in errata("list").splitlines() if "support" in line)
    monkeypatch.setenv("ERRATA_API_KEY", token)
    refused = CliRunner().invoke(app, ["keys", "list", "--url", server.url])
    assert refused.exit_code == 1
    assert "(invalid_api_key)" in refused.output
