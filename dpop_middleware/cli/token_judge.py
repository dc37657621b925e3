"""The access token of `explain`: its verifier, and the checks that can't be made without keys or names.

A signed JWT is verified here. The meaning of an opaque token comes from its issuer: it is asked now, or its
answer was saved before.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.cli.verifiers import BySavedAnswer, TokenJudge, WithFetchedKeys, WithoutKeys
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.introspection import ClientAuthentication, ClientSecretBasic, ClientSecretPost
from dpop_middleware.introspection._answer import AnswerRules
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.profiles import KNOWN, RFC9068
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW
from dpop_middleware.tokens.claims import NEVER_DROPPED, ClaimRules, checked_token_types
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.signed_token import has_three_segments

__all__ = ["add_token_arguments", "token_judge"]

_NO_KEYS = "no keys are given: add --jwks or --issuer"
_PLACEHOLDER = "https://issuer.invalid"
_REQUIRED_OF_AN_ANSWER = ("exp", "token_type")
# Seconds; a person waits longer than a request.
_PATIENCE = 10.0


def add_token_arguments(parser: ArgumentParser) -> None:
    """Add the options that say how a server verifies access tokens."""
    group = parser.add_argument_group("the access token")
    group.add_argument("--token", metavar="-|@FILE|TOKEN", help="without it, this is a token request")
    group.add_argument("--bearer", action="store_true", help="it came with the scheme Bearer")
    group.add_argument(
        "--jwks", metavar="FILE|URL", help="the issuer's keys: a file, - for standard input, or an https URL"
    )
    group.add_argument("--issuer", metavar="URL", help="its iss; without --jwks its metadata is fetched")
    group.add_argument("--audience", action="append", metavar="AUD", help="the server's audience; repeatable")
    group.add_argument("--scope", action="append", metavar="SCOPE", help="a scope that the route asks for")
    group.add_argument(
        "--token-clock-skew",
        type=float,
        default=TOKEN_CLOCK_SKEW,
        metavar="SECONDS",
        help="how far the issuer's clock may differ (default: %(default)g)",
    )
    differs = parser.add_argument_group("tokens that differ from RFC 9068, each but --profile repeatable")
    differs.add_argument(
        "--profile", choices=[known.name for known in KNOWN], help="the form of an issuer's tokens"
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
    _add_opaque_arguments(parser)


def _add_opaque_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("an opaque access token")
    group.add_argument(
        "--introspection",
        metavar="FILE|URL|issuer",
        help="what the issuer says of it: a saved answer, - for standard input, or the https URL of the "
        "endpoint to ask, or the word issuer to find that by the metadata of --issuer",
    )
    group.add_argument("--client-id", metavar="ID", help="the client that asks the endpoint")
    group.add_argument("--client-secret", metavar="-|@FILE", help="the secret of that client")
    group.add_argument("--client-secret-post", action="store_true", help="send it in the form")


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
    claims: dict[str, Any] = {
        "scope_claims": (*RFC9068.scope_claims, *(args.scope_claim or ())),
        "client_id_claims": (*RFC9068.client_id_claims, *(args.client_id_claim or ())),
        "clock_skew": args.token_clock_skew,
    }
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
