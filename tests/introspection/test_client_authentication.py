"""The client is authenticated to the endpoint, and the secret appears nowhere else."""

import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest
from starlette.responses import Response

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceRequest,
    ResourceServer,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, DPoPError, Unavailable
from dpop_middleware.introspection import (
    BoundToken,
    ClientSecretBasic,
    ClientSecretPost,
    IntrospectionVerifier,
    PrivateKeyJWT,
)
from dpop_middleware.testing import TestIssuer
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question

KEY = DPoPKey.generate()
JKT = KEY.jkt
Verifier = Callable[..., IntrospectionVerifier]


async def test_a_secret_is_sent_in_the_authorization_field(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    us = ClientSecretBasic(client_id="our api", client_secret="s3cret:/+ü")
    await verifier(client_authentication=us).verify(issuer.issue(JKT))
    scheme, _, encoded = issuer.asked[0].headers["authorization"].partition(" ")
    name, _, secret = base64.b64decode(encoded).decode("ascii").partition(":")
    assert (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", "our api", "s3cret:/+ü")
    assert "client_id" not in issuer.asked[0].form


async def test_a_secret_is_sent_in_the_form(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    us = ClientSecretPost(client_id="our api", client_secret="s3cret:/+ü")
    await verifier(client_authentication=us).verify(issuer.issue(JKT))
    question = issuer.asked[0]
    assert (question.form["client_id"], question.form["client_secret"]) == ("our api", "s3cret:/+ü")
    assert "authorization" not in question.headers


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
async def test_a_jwt_is_signed_by_the_client_key(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, algorithm: str
) -> None:
    key = DPoPKey.generate(algorithm)
    opaque = verifier(client_authentication=PrivateKeyJWT(client_id="our api", key=key, kid="k1"))
    for _ in range(2):
        await opaque.verify(issuer.issue(JKT))
    identifiers = set()
    for question in issuer.asked:
        assert question.form["client_id"] == "our api"
        assert question.form["client_assertion_type"] == (
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        assertion = question.form["client_assertion"]
        assert jwt.get_unverified_header(assertion) == {"typ": "JWT", "alg": algorithm, "kid": "k1"}
        claims = jwt.decode(
            assertion, jwt.PyJWK.from_dict(key.public_jwk, algorithm), [algorithm], audience=issuer.origin
        )
        assert claims["iss"] == claims["sub"] == "our api"
        assert 0 < claims["exp"] - time.time() <= 60
        identifiers.add(claims["jti"])
    assert len(identifiers) == 2


async def test_the_audience_of_the_jwt_can_be_set(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    us = PrivateKeyJWT(client_id="our api", key=KEY, audience=issuer.endpoint)
    await verifier(client_authentication=us).verify(issuer.issue(JKT))
    assertion = issuer.asked[0].form["client_assertion"]
    assert "kid" not in jwt.get_unverified_header(assertion)
    assert jwt.decode(assertion, options={"verify_signature": False})["aud"] == issuer.endpoint


async def test_a_bound_token_is_sent_with_a_proof_and_the_endpoints_nonce(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    """The endpoint is protected by a ResourceServer that demands nonces."""
    tokens = TestIssuer("https://auth.example.test", audience=issuer.origin)
    guard = ResourceServer(
        verifier=JWTAccessTokenVerifier(
            issuer="https://auth.example.test", audience=issuer.origin, jwks=tokens.jwks()
        ),
        resource=issuer.origin,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(nonce="required"),
        nonces=HMACNonceProvider(bytes(32)),
    )
    statuses: list[int] = []

    async def behave(question: Question) -> Response | None:
        request = ResourceRequest(
            method="POST",
            raw_path="/introspect",
            hosts=(question.headers["host"],),
            authorization=(question.headers["authorization"],),
            dpop=(question.headers["dpop"],),
        )
        try:
            await guard.authenticate(request)
        except DPoPError as error:
            drawn = guard.error_response(error)
            statuses.append(drawn.status)
            return Response(drawn.body, drawn.status, dict(drawn.headers))
        statuses.append(200)
        return None

    issuer.behaves = behave
    calls: list[str] = []

    async def token() -> str:
        calls.append(tokens.token(jkt=JKT))
        return calls[-1]

    opaque = verifier(client_authentication=BoundToken(key=KEY, token=token))
    for _ in range(2):
        assert (await opaque.verify(issuer.issue(JKT))).subject == "ann"
    assert statuses == [401, 200, 200]
    assert len(calls) == 2
    stolen = verifier(client_authentication=BoundToken(key=DPoPKey.generate(), token=tokens.token(jkt=JKT)))
    with pytest.raises(Unavailable) as caught:
        await stolen.verify(issuer.issue(JKT))
    assert "the status is 401" in str(caught.value.actual)


async def test_a_token_source_that_fails_reveals_no_token(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    def token() -> str:
        raise KeyError("secret-token")

    with pytest.raises(Unavailable) as caught:
        await verifier(client_authentication=BoundToken(key=KEY, token=token)).verify(issuer.issue(JKT))
    assert "KeyError" in str(caught.value.actual)
    assert "secret-token" not in str(caught.value.actual)
    assert issuer.asked == []


SECRETS: list[Any] = [
    ClientSecretBasic(client_id="api", client_secret="hidden-away"),
    ClientSecretPost(client_id="api", client_secret="hidden-away"),
    PrivateKeyJWT(client_id="api", key=KEY),
    BoundToken(key=KEY, token="hidden-away"),
]


@pytest.mark.parametrize("us", SECRETS, ids=lambda us: type(us).__name__)
def test_no_secret_is_shown(us: Any) -> None:
    private = KEY.private_jwk()["d"]
    assert "hidden-away" not in repr(us)
    assert private not in repr(us)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ClientSecretBasic(client_id="", client_secret="x"), "client_id takes a non-empty string"),
        (lambda: ClientSecretPost(client_id="x", client_secret=b"hidden"), "client_secret takes"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: ClientSecretBasic(client_id="x", client_secret=""), "client_secret takes"),
        (lambda: PrivateKeyJWT(client_id="x", key="hidden"), "key takes a DPoPKey"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: PrivateKeyJWT(client_id="x", key=KEY, kid=""), "kid takes"),
        (lambda: BoundToken(key=KEY, token=""), "token takes"),
        (lambda: BoundToken(key=KEY, token="hidden\n"), "token takes an access token as it was issued"),
        (lambda: BoundToken(key=None, token="x"), "key takes a DPoPKey"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ],
)
def test_unusable_credentials_are_refused_at_the_start(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        make()
    assert "hidden" not in str(caught.value)


async def test_a_credential_that_can_not_be_sent_is_not_quoted(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    opaque = verifier(client_authentication=BoundToken(key=KEY, token=lambda: "hidden\n"))
    with pytest.raises(Unavailable) as caught:
        await opaque.verify(issuer.issue(JKT))
    said = f"{(await opaque.health()).error} {caught.value.actual} {caplog.text}"
    assert "ValueError" in said
    assert "hidden" not in said
