"""Cases 6 and 34: real certificates, a real CONNECT proxy on loopback; what cannot be trusted is never sent a frame."""

import base64
import contextlib
import http.client
import http.server
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from holter.node.transport import Transport

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
HOST = "collector.example"
CA_CONFIG = """[ca]
default_ca=own
[own]
database={0}/index
serial={0}/serial
new_certs_dir={0}
default_md=sha256
policy=any
copy_extensions=copy
[any]
commonName=supplied
"""


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """`good`, `other` (another host's) and `expired`, each its own authority; a folder with NAME.crt and the key of all."""
    folder = tmp_path_factory.mktemp("certificates")
    key, names = folder / "key", {"good": HOST, "other": "other.example", "expired": HOST}
    _openssl("genrsa", "-out", key, 2048)
    for name, host in names.items():
        alternatives = f"subjectAltName=DNS:{host}" + ("" if name == "other" else ",IP:127.0.0.1")
        asked = ("req", "-new", "-key", key, "-subj", f"/CN={host}", "-addext", alternatives)
        if name != "expired":
            _openssl(*asked, "-x509", "-days", 2, "-out", folder / f"{name}.crt")
            continue
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        (folder / "config").write_text(CA_CONFIG.format(folder))
        _openssl(*asked, "-out", folder / "request")
        dates = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
        what = ("-config", folder / "config", "-keyfile", key, "-in", folder / "request", "-out", folder / "expired.crt")
        _openssl("ca", "-selfsign", "-batch", "-notext", *what, *dates)
    return folder


class _Door(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(certificates):
    """Start a collector that shows a certificate, or speaks plainly without one."""
    servers = []

    def start(name=None):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Door)
        server.heard, server.daemon_threads = [], True
        server.handle_error = lambda *arguments: None
        if name:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / f"{name}.crt", certificates / "key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(monkeypatch):
    """A proxy the environment names; `answer` is its word for CONNECT (None: never a word), `upstream` where tunnels end."""
    found = _Proxy()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:p%40ss@127.0.0.1:{found.port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.close()


class _Proxy:
    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answer, self.upstream, self.heads, self._open = b"HTTP/1.1 200 OK\r\n\r\n", 0, [], []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                client.settimeout(20)
                self._open.append(client)
                threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client):
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.heads.append(head)
            if self.answer is None:
                return
            client.sendall(self.answer)
            if b" 200 " not in self.answer or not head.startswith(b"CONNECT"):
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self.upstream), 5)
            self._open.append(server)
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            _pump(client, server)

    def close(self):
        for sock in [self._listener, *self._open]:
            sock.close()


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


def test_the_authority_that_the_environment_names_is_believed(serve, certificates, monkeypatch):
    server = serve("good")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.crt"))
    assert Transport(f"https://127.0.0.1:{server.server_port}").post("/x", b"frame", {}).status == 200
    assert server.heard[0][1] == b"frame"


@pytest.mark.parametrize(
    ("shown", "believed", "why"),
    [("good", None, "self.signed"), ("other", "other", "mismatch|not valid for"), ("expired", "expired", "expired")],
)
def test_a_certificate_that_proves_nothing_gets_no_frame(serve, certificates, monkeypatch, shown, believed, why):
    """Self-signed, another host's, expired."""
    server = serve(shown)
    if believed:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / f"{believed}.crt"))
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        Transport(f"https://127.0.0.1:{server.server_port}").post("/x", b"frame", {"Authorization": "Bearer secret"})
    assert not server.heard


def test_a_tunnel_goes_through_the_proxy_that_the_environment_names(serve, proxy, certificates, monkeypatch):
    """The name is resolved by the proxy, the certificate checked behind it, and the token is not shown to the proxy."""
    server = serve("good")
    proxy.upstream = server.server_port
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.crt"))
    answer = Transport(f"https://{HOST}").post("/x", b"frame", {"Authorization": "Bearer secret"})
    assert answer.status == 200 and server.heard[0][1] == b"frame"
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:443 ".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in head
    assert b"secret" not in head
    assert "Proxy-Authorization" not in server.heard[0][2]


def test_a_plain_proxy_hears_the_whole_address_and_who_asks(proxy):
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert Transport(f"http://{HOST}:8787").post("/x", b"frame", {}).status == 200
    assert proxy.heads[0].startswith(f"POST http://{HOST}:8787/x ".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in proxy.heads[0]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 407 Who\r\n\r\n", b"", b"nonsense\r\n\r\n", None])
def test_a_proxy_that_refuses_or_hangs_is_trouble_like_any_other(proxy, monkeypatch, answer):
    """The shipper keeps the frame on `OSError` and `HTTPException`; nothing else may come out."""
    monkeypatch.setattr("holter.node.transport.CONNECT_SECONDS", 0.5)
    proxy.answer = answer
    with pytest.raises((OSError, http.client.HTTPException)):
        Transport(f"https://{HOST}").post("/x", b"frame", {})
