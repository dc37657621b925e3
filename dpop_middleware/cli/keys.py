"""The commands that need only a key: `dpop-middleware keygen`, `proof` and `thumbprint`.

They make a private key, a proof for one request or the request as a curl command, or the `jkt` of a key.
"""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware.cli.console import PRIVATE_KEY, Command, CommandError, Console, printable
from dpop_middleware.cli.inputs import (
    INSECURE_HTTP,
    Inputs,
    check_destination,
    checked_method,
    checked_token,
    parse_time,
)
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.errors import DPoPError
from dpop_middleware.jose import strict
from dpop_middleware.jose.algorithms import ALGORITHMS, KTY
from dpop_middleware.jose.jwk import public_key, thumbprint

__all__ = ["KEYGEN", "PROOF", "THUMBPRINT"]

_RSA_BITS: Final = 2048
_UNSUPPORTED: Final = "it is not on P-256, P-384 or P-521, nor RSA, nor Ed25519, nor ML-DSA"


def _add_keygen_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="the file to write, for its owner only: PEM for a name in .pem, else a JWK; - prints the JWK",
    )
    parser.add_argument(
        "--algorithm", choices=tuple(ALGORITHMS), default="ES256", metavar="ALG", help="%(choices)s"
    )
    parser.add_argument(
        "--rsa-bits", type=int, metavar="N", help="for RS and PS algorithms: 2048 to 4096, by default 2048"
    )
    parser.add_argument("--password", metavar="-|@FILE", help="encrypt a .pem file with this password")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("--json", action="store_true", help="describe the new key in JSON")


def _run_keygen(args: Namespace, console: Console) -> int:
    password = Inputs().secret("--password", args.password)
    if args.rsa_bits is not None and ALGORITHMS[args.algorithm].kty != "RSA":
        raise CommandError(f"--rsa-bits is for an RSA key: add --algorithm RS256, not {args.algorithm}")
    try:
        key = DPoPKey.generate(args.algorithm, rsa_bits=_RSA_BITS if args.rsa_bits is None else args.rsa_bits)
        if args.file == "-":
            _print(key, console, password)
            return 0
        opened_by = None if password is None else password.encode("latin-1")
        key.save(args.file, password=opened_by, overwrite=args.overwrite)
    except FileExistsError as error:
        raise CommandError(f"{args.file} exists: choose another name, or add --overwrite") from error
    except OSError as error:
        raise CommandError(f"can't write {args.file}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"no key was made: {error}") from error
    if args.json:
        made = {"file": args.file, "algorithm": key.algorithm, "jkt": key.jkt, "public_jwk": key.public_jwk}
        console.json(made)
        return 0
    console.line(f"wrote {printable(args.file)}, readable by its owner only")
    console.line(f"algorithm  {key.algorithm}")
    console.line(f"jkt        {key.jkt}")
    return 0


def _print(key: DPoPKey, console: Console, password: str | None) -> None:
    if password is not None:
        raise CommandError("a JWK is not encrypted: name a file that ends in .pem")
    console.note(f"a private key of {key.algorithm} with jkt {key.jkt} follows: keep it secret")
    console.json(key.private_jwk())


KEYGEN = Command(
    name="keygen",
    summary="make a private key",
    examples="""\
  dpop-middleware keygen client.jwk
  dpop-middleware keygen --algorithm EdDSA --password @passphrase client.pem
""",
    add_arguments=_add_keygen_arguments,
    run=_run_keygen,
)


def _add_proof_arguments(parser: ArgumentParser) -> None:
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


def _run_proof(args: Namespace, console: Console) -> int:
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


PROOF = Command(
    name="proof",
    summary="make a proof for one request",
    examples="""\
  dpop-middleware proof POST https://auth.example.com/token --key client.jwk
  dpop-middleware proof GET https://api.example.com/notes --key client.jwk --token @token.txt --curl | sh
  pass show api-token | dpop-middleware proof GET https://api.example.com/notes --key client.jwk --token -
""",
    add_arguments=_add_proof_arguments,
    run=_run_proof,
)


def _add_thumbprint_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a public or private key (JWK or PEM) or a DPoP proof: a file, or - for standard input",
    )
    parser.add_argument("--password", metavar="-|@FILE", help="the password of an encrypted PEM file")


def _run_thumbprint(args: Namespace, console: Console) -> int:
    inputs = Inputs()
    password = inputs.secret("--password", args.password)
    data = inputs.octets("FILE", args.file).strip()
    opened_by = None if password is None else password.encode("latin-1")
    try:
        console.line(_jkt(data, opened_by))
    except ValueError as error:
        raise CommandError(f"a DPoP server doesn't accept this key: {error}") from error
    except DPoPError as error:
        raise CommandError(f"a DPoP server doesn't accept this key: {error.description}") from error
    return 0


def _jkt(data: bytes, password: bytes | None) -> str:
    if data.startswith(b"-----BEGIN PUBLIC KEY"):
        return _of_public_pem(data)
    if data.startswith(b"-----BEGIN"):
        return DPoPKey.from_pem(data, password=password).jkt
    if not data.startswith(b"{"):
        return parse_header(split_proof(data.decode("latin-1")).header, tuple(ALGORITHMS)).jkt
    jwk = strict.parse_object(data)
    return DPoPKey.from_jwk(jwk).jkt if "d" in jwk or "priv" in jwk else _of_public_jwk(jwk)


def _of_public_pem(data: bytes) -> str:
    try:
        key = load_pem_public_key(data)
    except UnsupportedAlgorithm as error:
        raise ValueError("its type is not supported") from error
    for algorithm in ALGORITHMS.values():
        if algorithm.accepts(key):
            return _of_public_jwk(algorithm.verifier.to_jwk(key, as_dict=True))
    raise ValueError(_UNSUPPORTED)


def _of_public_jwk(jwk: Mapping[str, Any]) -> str:
    for algorithm in ALGORITHMS.values():
        if algorithm.kty == KTY and jwk.get("alg") != algorithm.name:
            continue
        if jwk.get("kty") == algorithm.kty and (algorithm.crv is None or jwk.get("crv") == algorithm.crv):
            public_key({**jwk, "alg": algorithm.name}, algorithm)
            return thumbprint(jwk)
    raise ValueError(_UNSUPPORTED)


THUMBPRINT = Command(
    name="thumbprint",
    summary="print the jkt of a key (RFC 7638), the value in a token's cnf",
    examples="""\
  dpop-middleware thumbprint client.jwk
  dpop-middleware thumbprint - < proof.txt
""",
    add_arguments=_add_thumbprint_arguments,
    run=_run_thumbprint,
)
