"""`dpop-middleware proof`: a proof for one request, or the request as a curl command."""

import shlex
from argparse import ArgumentParser, Namespace

from dpop_middleware.cli.command import PRIVATE_KEY, Command
from dpop_middleware.cli.console import CommandError, Console
from dpop_middleware.cli.inputs import (
    INSECURE_HTTP,
    Inputs,
    check_destination,
    checked_method,
    checked_token,
    parse_time,
)
from dpop_middleware.jose.algorithms import ALGORITHMS

__all__ = ["COMMAND"]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="the HTTP method, such as GET")
    parser.add_argument("url", metavar="URL", help="the absolute URL of the request")
    parser.add_argument("--key", required=True, metavar="FILE", help=PRIVATE_KEY)
    parser.add_argument("--password", metavar="-|@FILE", help="the password of an encrypted PEM file")
    parser.add_argument(
        "--algorithm",
        choices=tuple(ALGORITHMS),
        metavar="ALG",
        help="default: the algorithm that the key names, or the usual one for its type",
    )
    parser.add_argument(
        "--token",
        metavar="-|@FILE|TOKEN",
        help="the access token; leave it out for a token request",
    )
    parser.add_argument("--nonce", metavar="NONCE", help="the server's last DPoP-Nonce")
    parser.add_argument("--now", metavar="TIME", help="the iat, in seconds since the epoch or ISO 8601")
    parser.add_argument("--curl", action="store_true", help="print a curl command, which contains the token")
    parser.add_argument("--insecure-http", action="store_true", help=f"with --curl: {INSECURE_HTTP}")


def _run(args: Namespace, console: Console) -> int:
    inputs = Inputs()
    method = checked_method(args.method)
    key = inputs.key(
        "--key", args.key, algorithm=args.algorithm, password=inputs.secret("--password", args.password)
    )
    token = None if args.token is None else checked_token("--token", inputs.text("--token", args.token))
    now = None if args.now is None else parse_time(args.now)
    try:
        proof = key.proof(method, args.url, access_token=token, nonce=args.nonce, now=now)
    except ValueError as error:
        raise CommandError(f"no proof can be made: {error}") from error
    if args.curl:
        check_destination(args.url, insecure_http=args.insecure_http)
    if method != method.upper():
        console.note(f"note: methods are case-sensitive: {method} is not {method.upper()}")
    console.line(_curl(method, args.url, proof=proof, token=token) if args.curl else proof)
    return 0


def _curl(method: str, url: str, *, proof: str, token: str | None) -> str:
    # With --request HEAD, curl would wait for a body that never comes.
    words = ["curl", "--globoff", *(("--head",) if method == "HEAD" else ("--request", method))]
    if token is not None:
        words += ["--header", f"Authorization: DPoP {token}"]
    return shlex.join([*words, "--header", f"DPoP: {proof}", url])


COMMAND = Command(
    name="proof",
    summary="make a proof for one request",
    examples="""\
  dpop-middleware proof POST https://auth.example.com/token --key client.jwk
  dpop-middleware proof GET https://api.example.com/notes --key client.jwk --token @token.txt --curl | sh
  pass show api-token | dpop-middleware proof GET https://api.example.com/notes --key client.jwk --token -
""",
    add_arguments=_add_arguments,
    run=_run,
)
