"""`dpop-middleware thumbprint`: the `jkt` of a key."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware.cli.command import Command
from dpop_middleware.cli.console import CommandError, Console
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.errors import DPoPError
from dpop_middleware.jose import strict_json
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.jose.jwk import public_key, thumbprint
from dpop_middleware.jose.mldsa import KTY

__all__ = ["COMMAND"]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a public or private key (JWK or PEM) or a DPoP proof: a file, or - for standard input",
    )
    parser.add_argument("--password", metavar="-|@FILE", help="the password of an encrypted PEM file")


def _run(args: Namespace, console: Console) -> int:
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
    jwk = strict_json.parse_object(data)
    return DPoPKey.from_jwk(jwk).jkt if "d" in jwk or "priv" in jwk else _of_public_jwk(jwk)


def _of_public_pem(data: bytes) -> str:
    try:
        key = load_pem_public_key(data)
    except UnsupportedAlgorithm as error:
        raise ValueError("its type is not supported") from error
    for algorithm in ALGORITHMS.values():
        if algorithm.accepts(key):
            return _of_public_jwk(algorithm.verifier.to_jwk(key, as_dict=True))
    raise ValueError("it is not on P-256, P-384 or P-521, nor RSA, nor Ed25519, nor ML-DSA")


def _of_public_jwk(jwk: Mapping[str, Any]) -> str:
    for algorithm in ALGORITHMS.values():
        if algorithm.kty == KTY and jwk.get("alg") != algorithm.name:
            continue
        if jwk.get("kty") == algorithm.kty and (algorithm.crv is None or jwk.get("crv") == algorithm.crv):
            public_key({**jwk, "alg": algorithm.name}, algorithm)
            return thumbprint(jwk)
    raise ValueError("it is not on P-256, P-384 or P-521, nor RSA, nor Ed25519, nor ML-DSA")


COMMAND = Command(
    name="thumbprint",
    summary="print the jkt of a key (RFC 7638), the value in a token's cnf",
    examples="""\
  dpop-middleware thumbprint client.jwk
  dpop-middleware thumbprint - < proof.txt
""",
    add_arguments=_add_arguments,
    run=_run,
)
