"""Each case of the conformance suite: one request and the answer that it must get. For tests only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpx2

from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.proofs import one_nonce
from dpop_middleware.jose.strict import parse_header, split
from dpop_middleware.testing.defects import BROKEN_PROOFS, BrokenProof, HonestProof
from dpop_middleware.testing.issuer import ABSENT
from dpop_middleware.testing.target import Target

__all__ = ["CASES", "Case", "CaseRun"]

_Headers: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and the answer that it must get.

    - `request`: returns its header lines; None where the target can't make them.
    - `status`: None where the application must accept, with any status below 400.
    - `error`: the error code of the challenge, and of the JSON body if that has one; None for a challenge
      without an error code.
    - `presentations`, `by_time`: as in `BrokenProof`.
    """

    name: str
    request: Callable[["CaseRun"], _Headers | None]
    status: int | None
    error: str | None = None
    presentations: int = 1
    by_time: bool = False


@dataclass(slots=True)
class CaseRun:
    """One run of a case: the target, the client, and the last nonce of the server."""

    target: Target
    client: httpx2.AsyncClient
    nonce: str | None = field(default=None, repr=False)

    def honest(self, *, access_token: str | None = None) -> HonestProof:
        """Return the values of a new honest proof, by default for the target's access token."""
        return HonestProof(
            key=self.target.key,
            method=self.target.method,
            url=self.target.url,
            access_token=access_token or self.target.access_token,
            nonce=self.nonce,
            now=self.target.clock(),
        )

    def credentials(self, *proofs: str, scheme: str = "DPoP", access_token: str | None = None) -> _Headers:
        """Return the header lines of a request with these proofs."""
        token = access_token or self.target.access_token
        return [("Authorization", f"{scheme} {token}"), *(("DPoP", proof) for proof in proofs)]

    async def send(self, headers: _Headers) -> httpx2.Response:
        """Send the request once, and keep the nonce of the response."""
        response = await self.client.request(self.target.method, self.target.url, headers=headers)
        self.nonce = one_nonce(response.headers.get_list("DPoP-Nonce")) or self.nonce
        return response


_Request: TypeAlias = Callable[[CaseRun], _Headers | None]


def _honest(**changes: Any) -> _Request:
    """Return an honest request, with changed `header` members and `claims` that must not matter."""
    return lambda run: run.credentials(run.honest().encode(**changes))


def _htu(change: Callable[[str], str | None]) -> _Request:
    def request(run: CaseRun) -> _Headers | None:
        htu = change(run.target.url.split("#")[0].split("?")[0])
        return None if htu is None else run.credentials(run.honest().encode(claims={"htu": htu}))

    return request


def _in_upper_case(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme=parts.scheme.upper(), netloc=parts.netloc.upper()).geturl()


def _with_default_port(url: str) -> str | None:
    parts = urlsplit(url)
    if parts.port is not None:
        return None
    return parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()


def _broken(defect: BrokenProof) -> Case:
    return Case(
        name=defect.name,
        request=lambda run: run.credentials(*defect.fields(run.honest())),
        status=defect.status,
        error=defect.error,
        presentations=defect.presentations,
        by_time=defect.by_time,
    )


def _unknown_nonce(run: CaseRun) -> _Headers | None:
    if run.nonce is None:
        return None
    return run.credentials(run.honest().encode(claims={"nonce": "not-a-nonce-of-this-server"}))


def _two_authorizations(run: CaseRun) -> _Headers:
    honest = run.credentials(run.honest().encode())
    return [honest[0], *honest]


def _altered_token(run: CaseRun) -> _Headers:
    # The proof fits it: many servers judge the proof before they ask somebody about the token.
    altered = f"{run.target.access_token[:-8]}AAAAAAAA"
    return run.credentials(run.honest(access_token=altered).encode(), access_token=altered)


def _token(*, bound: bool = True, **changes: Any) -> _Request:
    """Return a request with a changed token, and a proof that fits it."""

    def request(run: CaseRun) -> _Headers | None:
        make = run.target.token
        if make is None:
            return None
        jkt = run.target.key.jkt if bound else None
        token = make(**{"jkt": jkt, **changes})
        proof = run.honest(access_token=token).encode()
        return run.credentials(proof, access_token=token)

    return request


def _signed_by_a_stranger(run: CaseRun) -> _Headers | None:
    if run.target.token is None:
        return None
    # Of the issuer's algorithm: the server may accept no other.
    algorithm = parse_header(split(run.target.access_token).header)["alg"]
    return _token(key=DPoPKey.generate(algorithm))(run)


_ACCEPTED: Final = MappingProxyType(
    {
        "honest": _honest(),
        "scheme_in_lower_case": lambda run: run.credentials(run.honest().encode(), scheme="dpop"),
        "unknown_claims": _honest(claims={"unknown": {"a": [1, None]}}),
        "unknown_header_members": _honest(header={"kid": "1", "unknown": True}),
        "htu_with_query_and_fragment": _htu(lambda url: f"{url}?a=b#c"),
        "htu_in_upper_case": _htu(_in_upper_case),
        "htu_with_default_port": _htu(_with_default_port),
    }
)

_REFUSED: Final[tuple[tuple[str, _Request, int, str | None], ...]] = (
    ("no_credentials", lambda _: [], 401, None),
    (
        "another_scheme",
        lambda run: run.credentials(run.honest().encode(), scheme="Basic"),
        401,
        None,
    ),
    (
        "no_token",
        lambda run: [("Authorization", "DPoP"), *run.credentials("x")[1:]],
        400,
        "invalid_request",
    ),
    ("two_authorizations", _two_authorizations, 400, "invalid_request"),
    (
        "bound_token_as_bearer",
        lambda run: run.credentials(run.honest().encode(), scheme="Bearer"),
        401,
        "invalid_token",
    ),
    (
        "bound_token_as_bearer_without_proof",
        lambda run: run.credentials(scheme="Bearer"),
        401,
        "invalid_token",
    ),
    ("altered_token", _altered_token, 401, "invalid_token"),
    ("unbound_token", _token(bound=False), 401, "invalid_token"),
    ("expired_token", _token(expires_in=-3600), 401, "invalid_token"),
    ("token_for_another_audience", _token(audience="https://another.example"), 401, "invalid_token"),
    ("token_of_another_issuer", _token(iss="https://another.example"), 401, "invalid_token"),
    ("token_signed_by_a_stranger", _signed_by_a_stranger, 401, "invalid_token"),
    ("token_without_signature", _token(key=ABSENT, header={"alg": "none"}), 401, "invalid_token"),
    ("unknown_nonce", _unknown_nonce, 401, "use_dpop_nonce"),
)

CASES: Final[tuple[Case, ...]] = (
    *(Case(name=name, request=request, status=None) for name, request in _ACCEPTED.items()),
    *(
        Case(name=name, request=request, status=status, error=error)
        for name, request, status, error in _REFUSED
    ),
    *(_broken(defect) for defect in BROKEN_PROOFS.values()),
)
"""Every case: honest requests, wrong credentials, and each defect of BROKEN_PROOFS."""
