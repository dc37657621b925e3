"""The access token of `explain`: its verifier, and the checks that can't be made without keys or names.

A signed JWT is verified here. The meaning of an opaque token comes from its issuer: it is asked now, or its
answer was saved before.

A server refuses a token that no key could make acceptable without any keys. Whether the issuer has the key,
and signed the token, isn't known then: `explain` finds it out.
"""

# What a verifier's keys come from is private to it; it is replaced here and nowhere else.
# pyright: reportPrivateUsage=false

from argparse import Namespace
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final

from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.introspection import ClientAuthentication, ClientSecretBasic, ClientSecretPost
from dpop_middleware.introspection._answer import AnswerRules, MalformedAnswer, judge_answer
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.profiles import KNOWN, RFC9068, Profile
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import NEVER_DROPPED, ClaimRules, checked_token_types, judge_claims
from dpop_middleware.tokens.jwks import StaticKeySource
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.signed_token import has_three_segments, parse_signed_token

__all__ = ["BySavedAnswer", "TokenJudge", "WithFetchedKeys", "WithoutKeys", "token_judge"]

_NO_KEYS = "no keys are given: add --jwks or --issuer"
_PLACEHOLDER = "https://issuer.invalid"
_REQUIRED_OF_AN_ANSWER = ("exp", "token_type")
# Seconds; a person waits longer than a request.
_PATIENCE = 10.0
_BY_CLAIMS: Final = (Check.TOKEN_CLAIMS, Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME, Check.BINDING)


@dataclass(frozen=True, slots=True)
class TokenJudge:
    """A verifier for one token, and the checks that it can't make, each with its reason.

    `rules` are those for a JWT's claims, None for a token that isn't one: they judge the claims where the
    verifier doesn't reach them. `asks` says that the verifier asks the issuer about the token.
    """

    verifier: AccessTokenVerifier
    unknown: Mapping[Check, str] = field(default_factory=dict)
    rules: ClaimRules | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class WithoutKeys:
    """Judges signed tokens by all but their key and signature; `now` is in seconds since the epoch."""

    rules: ClaimRules
    token_types: tuple[str | None, ...]
    now: float
    expiry_is_final = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self.rules.issuer,)

    def accepting_type(self, typ: str | None) -> "WithoutKeys":
        """Return a verifier that accepts one more `typ`: see `JWTAccessTokenVerifier`."""
        return replace(self, token_types=checked_token_types((*self.token_types, typ)))

    async def verify(self, token: str) -> AccessToken:
        """Judge the header and the claims of one token."""
        signed = parse_signed_token(token, token_types=self.token_types, algorithms=SUPPORTED_ALGORITHMS)
        return judge_claims(signed.payload, rules=self.rules, now=self.now).access_token


@dataclass(frozen=True, slots=True)
class BySavedAnswer:
    """Judges one opaque token by what its issuer `said` about it; `now` is in seconds since the epoch."""

    rules: AnswerRules
    said: Mapping[str, Any] = field(repr=False)
    now: float
    remote = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self.rules.claims.issuer,)

    async def verify(self, token: str) -> AccessToken:  # noqa: ARG002 - the answer is about this one token
        """Judge the answer; raises `errors.Unavailable` for one that can't be used."""
        try:
            return judge_answer(self.said, rules=self.rules, now=self.now)
        except MalformedAnswer as error:
            raise Unavailable(
                "the saved answer can't be used", check=Check.TOKEN_ACTIVE, actual=str(error)
            ) from error


@dataclass(frozen=True, slots=True)
class WithFetchedKeys:
    """Judges tokens as `verifier` does, but never their claims before key and signature."""

    verifier: JWTAccessTokenVerifier
    expiry_is_final = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return self.verifier.issuers

    def accepting_type(self, typ: str | None) -> "WithFetchedKeys":
        """Return a verifier that accepts one more `typ`: see `JWTAccessTokenVerifier`."""
        return WithFetchedKeys(self.verifier.accepting_type(typ))

    async def verify(self, token: str) -> AccessToken:
        """Verify one token; raises `errors.Unavailable` also where its claims alone would cause a refusal."""
        try:
            return await self.verifier.verify(token)
        except InvalidToken as error:
            if error.check not in _BY_CLAIMS:
                raise
        in_order = self.verifier._sibling()
        in_order._source = StaticKeySource(await self.verifier._source.load())
        return await in_order.verify(token)

    async def aclose(self) -> None:
        """Close the verifier."""
        await self.verifier.aclose()


def token_judge(args: Namespace, inputs: Inputs, token: str | None, *, now: float) -> TokenJudge:
    """Return the verifier for `token` that the options describe; `now` is in seconds since the epoch.

    Without a named issuer or audience, the token's own is used and not checked. Raises
    CommandError and ConfigurationError.
    """
    return _opaque_judge(args, inputs, token, now=now) or _jwt_judge(args, inputs, token, now=now)


def _jwt_judge(args: Namespace, inputs: Inputs, token: str | None, *, now: float) -> TokenJudge:
    claims = _unverified_claims(token)
    unknown = _unnamed(args)
    hosts = checked_hosts(args.insecure_http_host or ())
    issuer = args.issuer or _own_issuer(claims, hosts)
    audiences = args.audience or _own_audiences(claims)
    added = [None if name == "none" else name for name in args.token_type or ()]
    profile = next((known for known in KNOWN if known.name == args.profile), RFC9068)
    types = (*profile.token_types, *added)
    shared = _how_claims_are_read(args, profile)
    required = profile.required_claims
    if args.required_claim is not None:
        required = tuple(dict.fromkeys((*NEVER_DROPPED, *args.required_claim)))
    rules = ClaimRules(issuer=issuer, audiences=frozenset(audiences), required=required, **shared)
    if args.jwks is None and args.issuer is None:
        reader = WithoutKeys(rules, checked_token_types(types), now)
        unknown |= dict.fromkeys((Check.TOKEN_KEY, Check.TOKEN_SIGNATURE), _NO_KEYS)
        return TokenJudge(reader, unknown, rules)
    verifier = JWTAccessTokenVerifier(
        issuer=issuer,
        audience=audiences,
        jwks=_jwks(args.jwks, inputs),
        jwks_timeout=_PATIENCE,
        jwks_patience=_PATIENCE,
        token_types=types,
        required_claims=required,
        clock=lambda: now,
        insecure_http_hosts=hosts,
        **shared,
    )
    return TokenJudge(WithFetchedKeys(verifier), unknown, rules)


def _how_claims_are_read(args: Namespace, profile: Profile) -> dict[str, Any]:
    return {
        "scope_claims": (*profile.scope_claims, *(args.scope_claim or ())),
        "client_id_claims": (*profile.client_id_claims, *(args.client_id_claim or ())),
        "clock_skew": args.token_clock_skew,
    }


def _unnamed(args: Namespace) -> dict[Check, str]:
    """Return the checks that can't be made since the server's issuer or audience isn't named, and why."""
    unknown: dict[Check, str] = {}
    if args.issuer is None:
        unknown[Check.TOKEN_ISS] = "the issuer is not named: add --issuer"
    if args.audience is None:
        unknown[Check.TOKEN_AUD] = "the audience is not named: add --audience"
    return unknown


def _jwks(value: str | None, inputs: Inputs) -> dict[str, Any] | str | None:
    if value is None or value.startswith(("https://", "http://")):
        return value
    return inputs.json_object("--jwks", value.removeprefix("@"))


def _unverified_claims(token: str | None) -> dict[str, Any]:
    """Return the token's claims, unverified; none if it can't be parsed, which the verifier reports."""
    try:
        return strict.parse_object(base64url.decode(strict.split(token or "").payload))
    except JOSEError:
        return {}


def _own_issuer(claims: Mapping[str, Any], hosts: Collection[str]) -> str:
    issuer = claims.get("iss", _PLACEHOLDER)
    try:
        checked_url("iss", issuer, insecure_http_hosts=hosts)
    except ConfigurationError as error:
        raise CommandError("the token's iss is not an https URL: name the issuer with --issuer") from error
    return str(issuer)


def _own_audiences(claims: Mapping[str, Any]) -> list[str]:
    value = claims.get("aud")
    audiences = value if isinstance(value, list) else [value]
    # The others are malformed, which the verifier reports.
    return [audience for audience in audiences if isinstance(audience, str) and audience] or [_PLACEHOLDER]


def _opaque_judge(args: Namespace, inputs: Inputs, token: str | None, *, now: float) -> TokenJudge | None:
    """Return the verifier for an opaque token, None for a JWT and without an issuer's answer."""
    if token is None or args.introspection is None or has_three_segments(token):
        return None
    claims = _how_claims_are_read(args, RFC9068)
    required = _REQUIRED_OF_AN_ANSWER if args.required_claim is None else tuple(args.required_claim)
    where = args.introspection
    if where == "issuer" or where.startswith(("https://", "http://")):
        return TokenJudge(_asking(args, inputs, required, now, claims), {}, asks=True)
    said = inputs.json_object("--introspection", where.removeprefix("@"))
    rules = ClaimRules(
        issuer=args.issuer or _text(said, "iss"),
        audiences=frozenset(args.audience or _own_audiences(said)),
        required=("iss", "aud", *required),
        **claims,
    )
    answer = AnswerRules(claims=rules, accept_missing_audience=args.audience is None)
    return TokenJudge(BySavedAnswer(answer, said, now), _unnamed(args))


def _asking(
    args: Namespace, inputs: Inputs, required: tuple[str, ...], now: float, claims: Mapping[str, Any]
) -> Any:
    if args.issuer is None or args.audience is None or args.client_id is None:
        raise CommandError("to ask the endpoint, name --issuer, --audience, --client-id and --client-secret")
    secret = inputs.secret("--client-secret", args.client_secret)
    if secret is None:
        raise CommandError("--client-secret takes - for standard input or @FILE")
    kind = ClientSecretPost if args.client_secret_post else ClientSecretBasic
    us: ClientAuthentication = kind(client_id=args.client_id, client_secret=secret)
    try:
        verifier = import_module("dpop_middleware.introspection.verifier").IntrospectionVerifier
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from error
    return verifier(
        issuer=args.issuer,
        audience=args.audience,
        client_authentication=us,
        endpoint=None if args.introspection == "issuer" else args.introspection,
        required_claims=required,
        clock=lambda: now,
        timeout=_PATIENCE,
        patience=_PATIENCE,
        insecure_http_hosts=checked_hosts(args.insecure_http_host or ()),
        **claims,
    )


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    # A malformed value is reported by the code that judges the answer.
    return value if isinstance(value, str) and value else _PLACEHOLDER
