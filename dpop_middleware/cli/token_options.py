"""The access token of `explain`, a signed JWT: its verifier, and the checks that can't be made.

Without keys or names, that is; `opaque_token` has what is for tokens that only their issuer can read.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError, base64url, strict_json
from dpop_middleware.jose.compact import split
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.profiles import KNOWN, RFC9068
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import NEVER_DROPPED, ClaimRules, judge_claims
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.options import checked_token_types
from dpop_middleware.tokens.signed_token import parse_signed_token

__all__ = ["DEFAULTS", "PLACEHOLDER", "TokenJudge", "add_token_arguments", "token_judge", "unnamed"]

_NO_KEYS = "no keys are given: add --jwks or --issuer"
PLACEHOLDER = "https://issuer.invalid"
DEFAULTS: Mapping[str, Any] = MappingProxyType(JWTAccessTokenVerifier.__init__.__kwdefaults__ or {})


@dataclass(frozen=True, slots=True)
class TokenJudge:
    """A verifier for one token, and the checks that it can't make, each with its reason.

    `rules` are those for a JWT's claims, None for a token that isn't one; `asks` says that the verifier asks
    the issuer about the token.
    """

    verifier: AccessTokenVerifier
    unknown: Mapping[Check, str]
    rules: ClaimRules | None = None
    asks: bool = False


def add_token_arguments(parser: ArgumentParser) -> None:
    """Add the options that say how a server verifies access tokens."""
    group = parser.add_argument_group("the access token")
    group.add_argument("--token", metavar="-|@FILE|TOKEN", help="without it, this is a token request")
    group.add_argument("--bearer", action="store_true", help="it came by the scheme Bearer")
    group.add_argument(
        "--jwks", metavar="FILE|URL", help="the issuer's keys: a file, - for standard input, or an https URL"
    )
    group.add_argument("--issuer", metavar="URL", help="its iss; without --jwks its metadata is fetched")
    group.add_argument("--audience", action="append", metavar="AUD", help="the server's audience; repeatable")
    group.add_argument("--scope", action="append", metavar="SCOPE", help="a scope that the route asks for")
    group.add_argument(
        "--token-clock-skew",
        type=float,
        default=DEFAULTS["clock_skew"],
        metavar="SECONDS",
        help="how far the issuer's clock may differ (default: %(default)g)",
    )
    differs = parser.add_argument_group("tokens that differ from RFC 9068, each but --profile repeatable")
    differs.add_argument(
        "--profile", choices=[known.name for known in KNOWN], help="the shape of an issuer's tokens"
    )
    differs.add_argument(
        "--token-type", action="append", metavar="TYP", help="another typ, or none for no typ"
    )
    differs.add_argument(
        "--scope-claim", action="append", metavar="NAME", help="a claim with scopes, such as scp"
    )
    differs.add_argument("--client-id-claim", action="append", metavar="NAME", help="such as azp or cid")
    differs.add_argument(
        "--required-claim",
        action="append",
        metavar="NAME",
        help="a claim that a token must have, instead of those of RFC 9068; iss, exp and aud stay required",
    )
    differs.add_argument(
        "--insecure-http-host",
        action="append",
        metavar="HOST",
        help="a host to reach by plain http",
    )


def token_judge(args: Namespace, inputs: Inputs, token: str | None, *, now: float) -> TokenJudge:
    """Return the verifier for `token` that the options describe; `now` is in seconds since the epoch.

    Without a named issuer or audience, the token's own is used and not checked. Raises
    CommandError and ConfigurationError.
    """
    claims = _unverified_claims(token)
    unknown = unnamed(args)
    hosts = checked_hosts(args.insecure_http_host or ())
    issuer = args.issuer or _own_issuer(claims, hosts)
    audiences = args.audience or _own_audiences(claims)
    added = [None if name == "none" else name for name in args.token_type or ()]
    profile = next((known for known in KNOWN if known.name == args.profile), RFC9068)
    types = (*profile.token_types, *added)
    shared: dict[str, Any] = {
        "scope_claims": (*profile.scope_claims, *(args.scope_claim or ())),
        "client_id_claims": (*profile.client_id_claims, *(args.client_id_claim or ())),
        "clock_skew": args.token_clock_skew,
    }
    required = profile.required_claims
    if args.required_claim is not None:
        required = tuple(dict.fromkeys((*NEVER_DROPPED, *args.required_claim)))
    rules = ClaimRules(issuer=issuer, audiences=frozenset(audiences), required=required, **shared)
    if args.jwks is None and args.issuer is None:
        reader = _Unverified(rules, checked_token_types(types), now)
        unknown |= dict.fromkeys((Check.TOKEN_KEY, Check.TOKEN_SIGNATURE), _NO_KEYS)
        return TokenJudge(reader, unknown, rules)
    verifier = JWTAccessTokenVerifier(
        issuer=issuer,
        audience=audiences,
        jwks=_jwks(args.jwks, inputs),
        token_types=types,
        required_claims=required,
        clock=lambda: now,
        insecure_http_hosts=hosts,
        **shared,
    )
    return TokenJudge(verifier, unknown, rules)


def unnamed(args: Namespace) -> dict[Check, str]:
    """Return the checks that can't be made where the server's issuer or audience isn't named, and why."""
    unknown: dict[Check, str] = {}
    if args.issuer is None:
        unknown[Check.TOKEN_ISS] = "the issuer is not named: add --issuer"
    if args.audience is None:
        unknown[Check.TOKEN_AUD] = "the audience is not named: add --audience"
    return unknown


@dataclass(frozen=True, slots=True)
class _Unverified:
    """Judges a token as the verifier does, but without its signature: for `explain` only."""

    rules: ClaimRules
    token_types: tuple[str | None, ...]
    now: float

    @property
    def issuers(self) -> tuple[str, ...]:
        return (self.rules.issuer,)

    def accepting_type(self, typ: str | None) -> "_Unverified":
        return replace(self, token_types=checked_token_types((*self.token_types, typ)))

    async def verify(self, token: str) -> AccessToken:
        signed = parse_signed_token(token, token_types=self.token_types, algorithms=SUPPORTED_ALGORITHMS)
        return judge_claims(signed.payload, rules=self.rules, now=self.now, key_identity="").access_token


def _jwks(value: str | None, inputs: Inputs) -> dict[str, Any] | str | None:
    if value is None or value.startswith(("https://", "http://")):
        return value
    return inputs.json_object("--jwks", value.removeprefix("@"))


def _unverified_claims(token: str | None) -> dict[str, Any]:
    """Return the token's claims, unverified; none where it can't be read, which the verifier reports."""
    try:
        return strict_json.parse_object(base64url.decode(split(token or "").payload))
    except JOSEError:
        return {}


def _own_issuer(claims: Mapping[str, Any], hosts: Collection[str]) -> str:
    issuer = claims.get("iss", PLACEHOLDER)
    try:
        checked_url("iss", issuer, insecure_http_hosts=hosts)
    except ConfigurationError as error:
        raise CommandError("the token's iss is not an https URL: name the issuer with --issuer") from error
    return str(issuer)


def _own_audiences(claims: Mapping[str, Any]) -> list[str]:
    value = claims.get("aud")
    audiences = value if isinstance(value, list) else [value]
    # The others are malformed, which the verifier reports.
    return [audience for audience in audiences if isinstance(audience, str) and audience] or [PLACEHOLDER]
