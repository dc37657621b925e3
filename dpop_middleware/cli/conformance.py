"""`dpop-middleware conformance`: the conformance suite against a running server."""

import asyncio
import os
import ssl
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from dpop_middleware._options import seconds
from dpop_middleware._runtime import system_time
from dpop_middleware.cli.console import PRIVATE_KEY, Command, CommandError, Console
from dpop_middleware.cli.inputs import INSECURE_HTTP, Inputs, check_destination, checked_method, checked_token
from dpop_middleware.testing.target import Target

__all__ = ["COMMAND"]

Drive = Callable[..., Coroutine[Any, Any, int]]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="a protected resource, best without side effects")
    parser.add_argument("--key", required=True, metavar="FILE", help=PRIVATE_KEY)
    parser.add_argument("--password", metavar="-|@FILE", help="the password of an encrypted PEM file")
    parser.add_argument(
        "--token",
        required=True,
        metavar="-|@FILE|TOKEN",
        help="an access token that is bound to the key and valid for the resource",
    )
    parser.add_argument("--method", default="GET", metavar="METHOD", help="default: GET; without a body")
    parser.add_argument("--only", action="append", metavar="CASE", help="run this case; repeatable")
    parser.add_argument("--leave-out", action="append", metavar="CASE", help="skip this case; repeatable")
    parser.add_argument(
        "--ca", metavar="FILE", help="trust these CAs too, PEM; SSL_CERT_FILE and SSL_CERT_DIR are honoured"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for one case, 0.1 to 600; default: 60"
    )
    parser.add_argument("--insecure-http", action="store_true", help=INSECURE_HTTP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: Namespace, console: Console) -> int:
    try:
        # Only this command needs httpx2.
        drive: Drive = import_module("dpop_middleware.cli.drive").drive
    except ModuleNotFoundError as error:
        raise CommandError(
            "this command needs httpx2: in a checkout of dpop_middleware, python -m pip install '.[client]'"
        ) from error
    inputs = Inputs()
    key = inputs.key("--key", args.key, password=inputs.secret("--password", args.password))
    trusted = _trusted(args.ca)
    target = Target(
        url=args.url,
        method=checked_method(args.method),
        key=key,
        access_token=checked_token("--token", inputs.text("--token", args.token)),
        leave_out=args.leave_out or (),
        clock=system_time,
        transport=None if trusted is None else lambda: _transport(trusted),
    )
    check_destination(args.url, insecure_http=args.insecure_http)
    patience = seconds("--timeout", args.timeout, minimum=0.1, maximum=600)
    return asyncio.run(drive(target, console, only=args.only or (), in_json=args.json, patience=patience))


def _trusted(ca: str | None) -> ssl.SSLContext | None:
    """Return what `--ca` and the environment say is to be trusted, None where they say nothing."""
    named = {"--ca": ca, "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE")}
    if not any(named.values()) and not os.environ.get("SSL_CERT_DIR"):
        return None
    context = ssl.create_default_context()
    for option, file in named.items():
        if file:
            try:
                context.load_verify_locations(cafile=file)
            except (OSError, ValueError) as error:
                # What is no certificate is an OSError too: an SSLError.
                raise CommandError(f"{option} names no readable file of certificates: {file}") from error
    return context


def _transport(trusted: ssl.SSLContext) -> Any:
    return import_module("httpx2").AsyncHTTPTransport(verify=trusted, trust_env=False)


COMMAND = Command(
    name="conformance",
    summary="send good and bad requests to a running server and judge its answers",
    examples="""\
  dpop-middleware conformance https://api.example.com/notes --key client.jwk --token @token.txt
  dpop-middleware conformance http://localhost:8000/notes --key client.jwk --token - < token.txt
  dpop-middleware conformance https://staging.example/notes --ca ca.pem --key client.jwk --token @token.txt

Cases that need other tokens, such as an expired one, are skipped. In your own tests,
dpop_middleware.testing.conformance runs them with the tokens of TestIssuer.

exit status: 0 every answer is right, 1 an answer is wrong, 2 usage error, 3 no answer
""",
    add_arguments=_add_arguments,
    run=_run,
)
