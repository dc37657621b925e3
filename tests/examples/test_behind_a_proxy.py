"""The nginx configuration of the chapter on proxies, run by the real nginx."""

import ssl
from collections.abc import Callable, Generator
from pathlib import Path

import httpx2
import pytest
import trustme
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.nginx import NGINX, nginx
from tests.support.ports import free_port
from tests.support.reader import API, ISSUER, readers_app
from tests.support.readme import blocks
from tests.support.servers import serving


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Generator[Callable[..., httpx2.Response]]:
    """The chapter's nginx, with two applications behind it; yields what calls them."""
    (block,) = blocks("nginx", "examples/behind_a_proxy/README.md")
    issuer = TestIssuer(ISSUER, audience=API)

    def protected(public_url: str) -> Callable[[str], ASGIApp]:
        api = ResourceServer(
            issuer=ISSUER,
            resource=API,
            public_url=public_url,
            jwks=issuer.jwks(),
            replay_store=MemoryReplayStore(),
        )
        return lambda _: DPoPMiddleware(readers_app(), api)

    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert("api.example.com")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(tmp_path / "chain.pem"), append=True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        serving("uvicorn-h11", protected(API)) as plain,
        serving("uvicorn-h11", protected(f"{API}/v1")) as prefixed,
    ):
        files = f"ssl_certificate {tmp_path}/chain.pem; ssl_certificate_key {tmp_path}/key.pem;"
        config = block.text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl; {files}")
        config = config.replace("http://127.0.0.1:8000", plain).replace("http://127.0.0.1:8001", prefixed)

        def call(path: str) -> httpx2.Response:
            key = DPoPKey.generate()
            token = issuer.token(jkt=key.jkt)
            with httpx2.Client(verify=ssl.create_default_context(cafile=tmp_path / "ca.pem")) as http:
                return http.get(
                    f"https://127.0.0.1:{port}{path}",
                    headers={
                        "Host": "api.example.com",
                        "Authorization": f"DPoP {token}",
                        "DPoP": key.proof("GET", f"{API}{path}", access_token=token),
                    },
                    extensions={"sni_hostname": "api.example.com"},
                )

        with nginx(tmp_path, config, port):
            yield call


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")
def test_the_nginx_configuration_passes_paths_as_they_were_sent(
    behind_nginx: Callable[..., httpx2.Response],
) -> None:
    assert behind_nginx("/notes%2F1").json() == {"subject": "user123", "path": "/notes%2F1"}
    assert behind_nginx("/v1/notes%2F1").json() == {"subject": "user123", "path": "/notes%2F1"}
