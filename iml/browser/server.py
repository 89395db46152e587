"""Serves the site to this machine alone."""

from __future__ import annotations

import ipaddress
import logging
import socket
import socketserver
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from iml.browser.pages import message_page
from iml.browser.site import ASSETS, NotFound, Site, asset
from iml.errors import InputError

#: Sent with every answer, whatever the page says itself; other sites may neither frame nor read it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HTML = "text/html; charset=utf-8"
_LOG = logging.getLogger(__name__)


def loopback_address(host: str) -> str:
    """The address of a loopback host.

    Raises:
      InputError: other machines could reach it.
    """
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise InputError(
            f"the browser is served on this machine alone, not on {host!r}",
            field="host",
            remedy="Use 127.0.0.1, and ssh -L to look from elsewhere",
        )
    return str(address)


class Server(ThreadingHTTPServer):
    """An HTTP server of a site on a loopback address.

    Attributes:
      site: what it serves.
    """

    daemon_threads = True

    def __init__(self, site: Site, host: str, port: int):
        """Binds the address.

        Args:
          port: the port; 0 for any that is free.

        Raises:
          InputError: the host is not a loopback address, or the port is taken.
        """
        self.site = site
        address = loopback_address(host)
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            super().__init__((address, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {address}, port {port} ({error})",
                field="port",
                remedy="Choose another, or 0 for any",
            ) from error

    def server_bind(self) -> None:
        # HTTPServer's own would ask the network for the name of this machine.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def knows(self, host: str) -> bool:
        """Whether a request's Host header names this machine, and not a name that was made to lead here.

        Any port will do: one that is forwarded from another machine need not be this server's own.
        """
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            name = host.lower()
        return name in ("localhost", "127.0.0.1", "[::1]", self.server_address[0])


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "iml"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        if not self.server.knows(self.headers.get("Host", "")):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", b"unknown host\n")
            return
        address = urlsplit(self.path)
        path = unquote(address.path).removeprefix("/") or "index.html"
        if path in ASSETS:
            self._answer(HTTPStatus.OK, ASSETS[path], asset(path))
            return
        status, page = self._page(path, address.query)
        self._answer(status, _HTML, page.encode())

    do_HEAD = do_GET

    def _page(self, path: str, query: str) -> tuple[HTTPStatus, str]:
        try:
            return HTTPStatus.OK, self.server.site.page(path, dict(parse_qsl(query, max_num_fields=32)))
        except NotFound:
            return HTTPStatus.NOT_FOUND, message_page("Not found", f"There is no page {path}.")
        except (InputError, ValueError) as error:
            return HTTPStatus.BAD_REQUEST, message_page("That cannot be shown", str(error))
        except Exception as error:
            _LOG.exception("failed to make %s", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, message_page("Something went wrong", repr(error))

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        _LOG.debug(format, *args)
