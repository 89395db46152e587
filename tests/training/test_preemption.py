"""Google Cloud's notices, from a server on the loopback address that answers as its metadata server does."""

import http.server
import threading

import pytest

from iml.training import preemption
from tests.training import tiny


@pytest.fixture
def server(monkeypatch):
    """What the server says, by path."""
    said = {"": "instance/", "instance/preempted": "FALSE", "instance/maintenance-event": "NONE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.removeprefix("/computeMetadata/v1/")
            known = path in said and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 403)
            self.send_header("Metadata-Flavor", said.get("flavor", "Google"))
            self.end_headers()
            self.wfile.write(said[path].encode() if known else b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv(preemption.ADDRESS, f"127.0.0.1:{serving.server_port}")
        # It answers in this very process, whatever else that does.
        monkeypatch.setattr(preemption, "_TIMEOUT", 60.0)
        yield said
        serving.shutdown()


@pytest.mark.parametrize(
    ("path", "value"),
    [("instance/preempted", "TRUE"), ("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")],
)
def test_a_notice_is_acted_on_once(server, path, value):
    noticed = threading.Event()
    calls = []
    with preemption.watching(lambda: calls.append(1) or noticed.set(), period=0.01):
        server["instance/maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"  # goes on running
        assert not noticed.wait(0.2)
        server[path] = value
        assert noticed.wait(120)
    assert calls == [1]


def test_other_machines_are_left_alone(server, monkeypatch):
    server["instance/preempted"] = "TRUE"
    server["flavor"] = "other"
    with preemption.watching(pytest.fail):
        assert preemption.find_server() is None
        assert "iml-preemption" not in {thread.name for thread in threading.enumerate()}
    monkeypatch.setenv(preemption.ADDRESS, "127.0.0.1:9")  # nobody there
    assert preemption.find_server() is None


def test_a_run_saves_and_asks_for_another_start(server, tmp_path, capsys):
    server["instance/preempted"] = "TRUE"
    with pytest.raises(SystemExit) as ended:
        tiny.run(tmp_path, steps=100_000)
    assert ended.value.code == 75
    assert "this machine is preempted" in capsys.readouterr().err
    assert 0 < tiny.steps(tmp_path / "run")[-1] < 100_000
