"""The conformance suite: the answers that every DPoP resource server must give, in any framework.

A case is one request and the answer that it must get. `run_case` runs one of `CASES` against a `Target`
through httpx2, in this process or over the network. `dpop_middleware.testing.conformance` makes a pytest test
of each.
"""

import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx2

from dpop_middleware.client.bodies import aread_or_drop
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.proofs import one_nonce
from dpop_middleware.jose.strict import parse_header, split
from dpop_middleware.testing.defects import BROKEN_PROOFS, BrokenProof, HonestProof
from dpop_middleware.testing.issuer import ABSENT
from dpop_middleware.testing.target import Target, lifespan

__all__ = ["CASES", "Case", "CaseRun", "Outcome", "Verdict", "run_case"]

Verdict = Literal["passed", "failed", "skipped"]
_Headers: TypeAlias = list[tuple[str, str]]
_Request: TypeAlias = Callable[["CaseRun"], _Headers | None]

# Why a case is skipped.
_NO_TOKENS: Final = "it needs another token of the issuer: in your tests, Target.of makes it"
_LACKING: Final = MappingProxyType(
    {
        "htu_with_default_port": "the URL already names a port",
        "unknown_nonce": "the server sends no nonces",
    }
)
_ERROR: Final = re.compile(r'\berror="([^"]*)"')


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
    request: _Request
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
        """Send the request once, and keep the nonce of the response; of a long body nothing is kept."""
        async with self.client.stream(self.target.method, self.target.url, headers=headers) as response:
            await aread_or_drop(response)
        self.nonce = one_nonce(response.headers.get_list("DPoP-Nonce")) or self.nonce
        return response


def _honest(*, scheme: str = "DPoP", **changes: Any) -> _Request:
    """Return an honest request but for its scheme, and for `header` members and `claims` of its proof."""
    return lambda run: run.credentials(run.honest().encode(**changes), scheme=scheme)


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


def _no_token(run: CaseRun) -> _Headers:
    return [("Authorization", "DPoP"), *run.credentials("x")[1:]]


def _bearer_alone(run: CaseRun) -> _Headers:
    return run.credentials(scheme="Bearer")


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


def _case(name: str, request: _Request, status: int | None = None, error: str | None = None) -> Case:
    return Case(name=name, request=request, status=status, error=error)


CASES: Final[tuple[Case, ...]] = (
    _case("honest", _honest()),
    _case("scheme_in_lower_case", _honest(scheme="dpop")),
    _case("unknown_claims", _honest(claims={"unknown": {"a": [1, None]}})),
    _case("unknown_header_members", _honest(header={"kid": "1", "unknown": True})),
    _case("htu_with_query_and_fragment", _htu(lambda url: f"{url}?a=b#c")),
    _case("htu_in_upper_case", _htu(_in_upper_case)),
    _case("htu_with_default_port", _htu(_with_default_port)),
    _case("no_credentials", lambda _: [], 401),
    _case("another_scheme", _honest(scheme="Basic"), 401),
    _case("no_token", _no_token, 400, "invalid_request"),
    _case("two_authorizations", _two_authorizations, 400, "invalid_request"),
    _case("bound_token_as_bearer", _honest(scheme="Bearer"), 401, "invalid_token"),
    _case("bound_token_as_bearer_without_proof", _bearer_alone, 401, "invalid_token"),
    _case("altered_token", _altered_token, 401, "invalid_token"),
    _case("unbound_token", _token(bound=False), 401, "invalid_token"),
    _case("expired_token", _token(expires_in=-3600), 401, "invalid_token"),
    _case("token_for_another_audience", _token(audience="https://another.example"), 401, "invalid_token"),
    _case("token_of_another_issuer", _token(iss="https://another.example"), 401, "invalid_token"),
    _case("token_signed_by_a_stranger", _signed_by_a_stranger, 401, "invalid_token"),
    _case("token_without_signature", _token(key=ABSENT, header={"alg": "none"}), 401, "invalid_token"),
    _case("unknown_nonce", _unknown_nonce, 401, "use_dpop_nonce"),
    *map(_broken, BROKEN_PROOFS.values()),
)
"""Every case: honest requests, wrong credentials, and each defect of BROKEN_PROOFS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a case. `expected` and `actual` are sentences without tokens and proofs."""

    name: str
    verdict: Verdict
    expected: str
    actual: str


async def run_case(case: Case, target: Target) -> Outcome:
    """Run one case against `target` and judge the answer.

    Raises the exceptions of httpx2 when the target can't be reached, and those of the application.
    """
    if case.name in target.leave_out:
        return _skipped(case, "the target leaves it out")
    async with AsyncExitStack() as stack:
        transport: httpx2.AsyncBaseTransport | None = None
        if target.transport is not None:
            transport = target.transport()
        elif target.app is not None:
            app = await stack.enter_async_context(lifespan(target.app))
            transport = httpx2.ASGITransport(app=app, root_path=target.root_path)
        client = await stack.enter_async_context(
            httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)
        )
        run = CaseRun(target, client)
        # A server that uses nonces sends one in its answer to an honest request.
        await run.send(run.credentials(run.honest().encode()))
        if case.by_time and run.nonce is not None:
            return _skipped(case, "the server checks the nonce, not iat")
        headers = case.request(run)
        if headers is None:
            return _skipped(case, _LACKING.get(case.name, _NO_TOKENS))
        for _ in range(case.presentations - 1):
            first = await run.send(headers)
            if first.status_code >= 400:
                return _judged(case, "the first presentation is accepted", _described(first), passed=False)
        return _judgement(case, await run.send(headers))


def _judgement(case: Case, response: httpx2.Response) -> Outcome:
    if case.status is None:
        return _judged(case, "accepted", _described(response), passed=response.status_code < 400)
    expected = f"{case.status}, a DPoP challenge, {case.error or 'no error code'}, no-store"
    challenges = response.headers.get_list("WWW-Authenticate")
    errors = {error for challenge in challenges for error in _ERROR.findall(challenge)}
    passed = (
        response.status_code == case.status
        and any(challenge.split(" ")[0] == "DPoP" for challenge in challenges)
        and errors == ({case.error} if case.error else set())
        and _error_in_body(response) in (case.error, None)
        and "no-store" in response.headers.get("Cache-Control", "")
        and (case.error != "use_dpop_nonce" or len(response.headers.get_list("DPoP-Nonce")) == 1)
    )
    return _judged(case, expected, _described(response), passed=passed)


def _error_in_body(response: httpx2.Response) -> object:
    """The error code that the body names; None without one: frameworks may write their own bodies."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return None
    return body.get("error") if isinstance(body, dict) else None


def _described(response: httpx2.Response) -> str:
    challenges = "; ".join(response.headers.get_list("WWW-Authenticate")) or "no challenge"
    stored = response.headers.get("Cache-Control", "no Cache-Control")
    # As UTF-8, whatever charset the answer names: some are codecs of Python's that are no charset.
    text = response.content.decode("utf-8", "replace")[:200]
    return f"{response.status_code}, {challenges}, {stored}, {text}"


def _judged(case: Case, expected: str, actual: str, *, passed: bool) -> Outcome:
    return Outcome(name=case.name, verdict="passed" if passed else "failed", expected=expected, actual=actual)


def _skipped(case: Case, reason: str) -> Outcome:
    return Outcome(name=case.name, verdict="skipped", expected="", actual=reason)
