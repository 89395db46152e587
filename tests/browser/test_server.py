"""The browser is served to this machine alone, and serves its pages alone."""

import http.client
from urllib.parse import quote

import pytest

from iml.browser.server import Server
from iml.errors import InputError
from tests.browser.pages import HOSTILE, PLAIN


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=120)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_only_loopback_addresses_are_served(site):
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", ""):
        with pytest.raises(InputError, match="this machine alone"):
            Server(site, host, 0)


def test_a_taken_port_is_told(site, server):
    with pytest.raises(InputError, match="cannot listen"):
        Server(site, "localhost", server.server_address[1])


def test_requests_under_another_name_are_refused(server):
    port = server.server_address[1]
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", "localhost", "[::1]", "127.0.0.1:9999"):
        assert get(server, "/", Host=host)[0] == 200
    for host in (
        f"evil.invalid:{port}",
        f"127.0.0.1.evil.invalid:{port}",
        "",
        "localhost:80@evil.invalid",
        ":80",
    ):
        status, headers, body = get(server, "/", Host=host)
        assert status == 403 and body == "unknown host\n" and "Content-Security-Policy" in headers


def test_answers_carry_their_protection_and_nothing_else_is_served(server):
    status, headers, body = get(server, "/")
    assert status == 200 and "Tasks of the example store" in body
    assert (
        "unsafe" not in headers["Content-Security-Policy"]
        and "file:" not in headers["Content-Security-Policy"]
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert get(server, "/style.css")[1]["Content-Type"].startswith("text/css")
    assert get(server, "/tasks.html", "HEAD")[2] == ""
    assert get(server, "/", "POST")[0] == 501
    for path in (
        "/../setup.py",
        "/%2e%2e/setup.py",
        "/task/..%2f..%2fx.html",
        f"/{quote(HOSTILE, errors='replace')}",
        "/static",
    ):
        status, _, body = get(server, path)
        assert status == 404 and "<img" not in body


@pytest.mark.parametrize(
    "query",
    ["shots=-1", "shots=1e9", "count=100000", "split=secret", "seed=%D9%A1", "delimiter=99", "first=7",
     "split=%3Cscript%3E"],
)  # fmt: skip
def test_impossible_choices_are_told(server, query):
    status, _, body = get(server, f"/task/{PLAIN}.html?{query}")
    assert status == 400 and "That cannot be shown" in body and "<script" not in body
