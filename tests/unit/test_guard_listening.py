"""Where a server may listen, and what `airlock doctor` says of it."""

import asyncio
import http.server
import signal
import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest
import trustme

from guard.cli.server_checks import check_address, check_metrics, check_policy, check_traces
from guard.config import load_config
from guard.errors import ConfigError
from guard.listening import address_of, listen, server_of, taken_away

pytestmark = pytest.mark.enable_socket


def configured(**settings):
    return load_config(None, {name.replace("__", "."): value for name, value in settings.items()})


@contextmanager
def answering(body):
    """A server of HTTP that answers everything with one body; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_port_that_is_taken_is_named_with_the_way_out():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server\.port = {port}.*--port"):
            listen(configured(server__port=port))


def test_a_unix_socket_takes_the_place_of_a_stale_one_only(tmp_path):
    path = tmp_path / "airlock.sock"
    config = configured(server__socket=path)
    with listen(config) as bound:
        assert address_of(bound, config.server) == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(ConfigError, match="another server listens there"):
            listen(config)
        assert "a server listens" in check_address(config)
    with listen(config):
        pass
    path.unlink()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        listen(config)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("trusted", "said", "client"),
    [
        (None, ["203.0.113.7"], "203.0.113.7"),
        (None, ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (None, [], "127.0.0.1"),
        ("127.0.0.1,10.0.0.0/8", ["203.0.113.7, 10.1.2.3"], "203.0.113.7"),  # another proxy before that of here
        ("*", ["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
    ],
)
def test_a_proxy_that_comes_by_a_unix_socket_says_whom_it_speaks_for(tmp_path, monkeypatch, trusted, said, client):
    set_trusted(monkeypatch, trusted)
    assert seen_as(None, said, server__socket=tmp_path / "airlock.sock") == client


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "client"),
    [
        (None, "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (None, "172.18.0.2", "203.0.113.7", "172.18.0.2"),
        ("172.18.0.0/16", "172.18.0.2", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("172.18.0.0/16", "127.0.0.1", "203.0.113.7", "127.0.0.1"),  # in place of 127.0.0.1
        ("172.18.0.2/16", "172.18.0.2", "203.0.113.7", "172.18.0.2"),
        ("*", "172.18.0.2", "198.51.100.1, 203.0.113.7", "198.51.100.1"),
        ("172.18.0.0/16", "::ffff:172.18.0.2", "203.0.113.7", "::ffff:172.18.0.2"),
        ("::ffff:172.18.0.0/112", "::ffff:172.18.0.2", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_a_proxy_is_believed_as_the_page_on_operations_says(monkeypatch, trusted, peer, said, client):
    set_trusted(monkeypatch, trusted)
    assert seen_as(peer, [said]) == client


def set_trusted(monkeypatch, trusted):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if trusted is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)


def seen_as(peer, said, **settings):
    """The address of a client by which an app sees a request from `peer` with such headers."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["client"][0])

    served = server_of(app, configured(**settings).server).config
    served.load()
    headers = [(b"x-forwarded-for", value.encode()) for value in said]
    scope = {"type": "http", "client": peer and (peer, 1234), "headers": headers, "state": {}, "server": None}
    asyncio.run(served.loaded_app(scope, None, None))
    (client,) = seen
    return client


def test_a_unix_socket_is_taken_away_at_the_end(tmp_path):
    config = configured(server__socket=tmp_path / "airlock.sock")
    with listen(config), taken_away(config.server):
        assert config.server.socket.exists()
    assert not config.server.socket.exists()
    with listen(config), taken_away(config.server):
        config.server.socket.unlink()
    with taken_away(configured().server):
        pass


def test_the_socket_of_a_server_that_came_meanwhile_stays(tmp_path):
    config = configured(server__socket=tmp_path / "airlock.sock")
    old = listen(config)
    with taken_away(config.server):
        before = config.server.socket.stat()
        old.close()  # it takes nothing new, and lets answers finish
        time.sleep(0.05)
        new = listen(config)
    with new:
        assert config.server.socket.stat().st_mtime_ns != before.st_mtime_ns, "its number may be that of the old one"
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(config.server.socket))


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    (folder / "empty.pem").write_text("nothing")
    return folder


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"certificate": "a.pem", "key": "b.key"}, "not the plain PEM key"),
        ({"certificate": "a.pem", "key": "none.key"}, r"server\.tls\.key = .*none\.key"),
        ({"certificate": "empty.pem", "key": "a.key"}, "not the plain PEM key"),
        ({"certificate": "a.pem", "key": "a.key", "client_ca": "empty.pem"}, "holds no certificate"),
    ],
)
def test_files_of_tls_that_do_not_fit_are_named_before_anything_is_loaded(certified, files, words):
    config = configured(server__port=0, server__tls={name: certified / file for name, file in files.items()})
    with pytest.raises(ConfigError, match=words):
        listen(config)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(certified, tmp_path):
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key((certified / "a.key").read_bytes(), None)
    form = (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))
    (tmp_path / "a.key").write_bytes(key.private_bytes(*form))
    with pytest.raises(ConfigError, match="must be decrypted first"):
        listen(configured(server__port=0, server__tls={"certificate": certified / "a.pem", "key": tmp_path / "a.key"}))


def test_doctor_says_whether_the_address_is_free_or_the_gateway_has_it(certified):
    assert "is free" in check_address(configured(server__port=0))
    files = {"certificate": certified / "a.pem", "key": certified / "a.key"}
    assert "TLS files fit" in check_address(configured(server__port=0, server__tls=files))
    with answering(b'{"status": "ok"}') as port:
        assert "a gateway listens" in check_address(configured(server__port=port))
    with answering(b"a stranger") as port, pytest.raises(ConfigError, match="choose another port"):
        check_address(configured(server__port=port))


def test_doctor_says_whether_metrics_can_be_served():
    assert check_metrics(configured()) == "off"
    assert "clients" in check_metrics(configured(metrics__serve="clients"))
    assert "is free" in check_metrics(configured(metrics__serve="apart", metrics__port=0))
    with answering(b"airlock_requests_total 1") as port:
        assert "already" in check_metrics(configured(metrics__serve="apart", metrics__port=port))
    with answering(b"a stranger") as port, pytest.raises(ConfigError, match=rf"metrics\.port = {port}"):
        check_metrics(configured(metrics__serve="apart", metrics__port=port))


def test_doctor_says_whether_a_collector_takes_spans():
    assert asyncio.run(check_traces(configured())) == "off"
    with answering(b"") as port:
        endpoint = f"http://127.0.0.1:{port}/v1/traces"
        assert "status 200" in asyncio.run(check_traces(configured(tracing__endpoint=endpoint)))
    with pytest.raises(ConfigError, match=r"tracing\.endpoint.*cannot be reached"):
        asyncio.run(check_traces(configured(tracing__endpoint=endpoint)))


def test_doctor_says_what_of_the_policy_can_never_match():
    rules = [{"name": "all", "route": "refuse"}, {"name": "late", "route": "forward"}]
    assert "late" in check_policy(configured(policy__rules=rules))
    with pytest.raises(ConfigError, match="u_nothing"):
        check_policy(configured(policy__rules=[{"name": "x", "route": "refuse", "when": {"category": "u_nothing"}}]))


def test_a_unix_socket_is_taken_away_by_a_server_that_is_told_to_stop_while_it_starts(tmp_path):
    config = configured(server__socket=tmp_path / "airlock.sock")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, listen(config), taken_away(config.server):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 0
    assert not config.server.socket.exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["no/airlock.sock", "s" * 120])
def test_a_unix_socket_without_a_place_is_named_with_the_way_out(tmp_path, name):
    with pytest.raises(ConfigError, match=r"server\.socket = .*(make it, or choose another path|a shorter path)"):
        listen(configured(server__socket=tmp_path / name))
