"""The access token of `explain`, an opaque one: what its issuer says of it, asked now or saved before."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from dpop_middleware._request.secure_url import checked_hosts
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.cli.token_options import DEFAULTS, PLACEHOLDER, TokenJudge, unnamed
from dpop_middleware.errors import Unavailable
from dpop_middleware.introspection import ClientAuthentication, ClientSecretBasic, ClientSecretPost
from dpop_middleware.introspection._answer import AnswerRules, MalformedAnswer, judge_answer
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.claims import ClaimRules

__all__ = ["add_opaque_arguments", "opaque_judge"]

_DOTS_OF_A_JWT = 2
_REQUIRED = ("exp", "token_type")
# Seconds; a person waits longer than a request.
_PATIENCE = 10.0


def add_opaque_arguments(parser: ArgumentParser) -> None:
    """Add the options that say what an opaque token stands for."""
    group = parser.add_argument_group("an opaque access token")
    group.add_argument(
        "--introspection",
        metavar="FILE|URL|issuer",
        help="what the issuer says of it: a saved answer, - for standard input, or the https URL of the "
        "endpoint to ask, or the word issuer to find that by the metadata of --issuer",
    )
    group.add_argument("--client-id", metavar="ID", help="who asks the endpoint")
    group.add_argument("--client-secret", metavar="-|@FILE", help="and by which secret")
    group.add_argument("--client-secret-post", action="store_true", help="send it in the form")


def opaque_judge(args: Namespace, inputs: Inputs, token: str | None, *, now: float) -> TokenJudge | None:
    """Return the verifier for an opaque `token` that the options describe; `now` is seconds since the epoch.

    None where there is no token, where it is a JWT, or where nothing says what it stands for. Raises
    CommandError and ConfigurationError.
    """
    if token is None or args.introspection is None or token.count(".") == _DOTS_OF_A_JWT:
        return None
    claims: dict[str, Any] = {
        "scope_claims": (*DEFAULTS["scope_claims"], *(args.scope_claim or ())),
        "client_id_claims": (*DEFAULTS["client_id_claims"], *(args.client_id_claim or ())),
        "clock_skew": args.token_clock_skew,
    }
    required = _REQUIRED if args.required_claim is None else tuple(args.required_claim)
    where = args.introspection
    if where == "issuer" or where.startswith(("https://", "http://")):
        return TokenJudge(_asking(args, inputs, required, now, claims), {}, asks=True)
    said = inputs.json_object("--introspection", where.removeprefix("@"))
    rules = ClaimRules(
        issuer=args.issuer or _text(said, "iss"),
        audiences=frozenset(args.audience or _audiences(said)),
        required=("iss", "aud", *required),
        **claims,
    )
    answer = AnswerRules(claims=rules, accept_missing_audience=args.audience is None)
    return TokenJudge(_Saved(answer, said, now, (rules.issuer,)), unnamed(args))


@dataclass(frozen=True, slots=True)
class _Saved:
    """Judges a token by an answer that was saved: for `explain` only."""

    rules: AnswerRules
    said: Mapping[str, Any] = field(repr=False)
    now: float
    issuers: tuple[str, ...]
    remote = True

    async def verify(self, token: str) -> AccessToken:  # noqa: ARG002 - the answer is about this one token
        try:
            return judge_answer(self.said, rules=self.rules, now=self.now)
        except MalformedAnswer as error:
            raise Unavailable(
                "the saved answer is of no use", check=Check.TOKEN_ACTIVE, actual=str(error)
            ) from error


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
    # What is malformed is reported by whoever judges the answer.
    return value if isinstance(value, str) and value else PLACEHOLDER


def _audiences(said: Mapping[str, Any]) -> list[str]:
    value = said.get("aud")
    audiences = value if isinstance(value, list) else [value]
    return [audience for audience in audiences if isinstance(audience, str) and audience] or [PLACEHOLDER]
