"""TLS: with a certificate of the test's own making."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from quintet.errors import RequestError
from quintet.server.run import tls_context
from quintet.server.settings import Settings

from .fake import FakeEngine
from .harness import run, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


def test_https(certificate: tuple[Path, Path]):
    """A client that trusts the certificate is served; the URL says https."""
    cert, key = certificate

    async def main() -> None:
        trust = ssl.create_default_context(cafile=cert)
        async with (
            serving({"m": FakeEngine()}, tls_cert=cert, tls_key=key) as server,
            httpx.AsyncClient(base_url=server.url, verify=trust) as client,
        ):
            assert server.url.startswith("https://127.0.0.1:")
            assert (await client.get("/health")).json() == {"status": "ok"}
            body = {"model": "m", "prompt": "a", "stream": True}
            assert "[DONE]" in (await client.post("/v1/completions", json=body)).text
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient() as stranger:
                    await stranger.get(f"{server.url}/health")
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url.replace("https", "http") + "/health")

    run(main())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(certificate: tuple[Path, Path]):
    """TLS 1.1 gets no handshake, TLS 1.2 does."""
    context = tls_context(Settings(tls_cert=certificate[0], tls_key=certificate[1]))
    assert context is not None
    for version, is_good in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        client = ssl.create_default_context(cafile=certificate[0])
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = version
        client.set_ciphers("ALL:@SECLEVEL=0")
        assert _shake_hands(context, client) == is_good


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether the two agree, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
            ends.remove(end)
    return not ends


def test_bad_certificates_are_named(certificate: tuple[Path, Path], tmp_path: Path):
    """One without the other, files that are none, a key that does not fit: one clear error."""
    cert, key = certificate
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for pair in ((cert, None), (None, key), (junk, key), (cert, junk), (tmp_path / "none", key)):
        with pytest.raises(RequestError, match="tls"):
            tls_context(Settings(tls_cert=pair[0], tls_key=pair[1]))


def test_no_port_is_left_open_by_a_bad_certificate(tmp_path: Path):
    """The server fails before it answers anybody."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    missing = tmp_path / "none.pem"

    async def main() -> None:
        with pytest.raises(RequestError):
            async with serving({"m": FakeEngine()}, tls_cert=missing, tls_key=missing):
                pass

    run(main())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
