"""`dpop-middleware keygen`: a new private key."""

from argparse import ArgumentParser, Namespace

from dpop_middleware.cli.command import Command
from dpop_middleware.cli.console import CommandError, Console, plain
from dpop_middleware.cli.inputs import Inputs
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.jose.algorithms import ALGORITHMS

__all__ = ["COMMAND"]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="the file to write, for its owner only: PEM for a name in .pem, else a JWK; - prints the JWK",
    )
    parser.add_argument(
        "--algorithm", choices=tuple(ALGORITHMS), default="ES256", metavar="ALG", help="%(choices)s"
    )
    parser.add_argument("--rsa-bits", type=int, default=2048, metavar="N", help="2048 to 4096")
    parser.add_argument("--password", metavar="-|@FILE", help="encrypt a .pem file with this password")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("--json", action="store_true", help="describe the new key in JSON")


def _run(args: Namespace, console: Console) -> int:
    password = Inputs().secret("--password", args.password)
    try:
        key = DPoPKey.generate(args.algorithm, rsa_bits=args.rsa_bits)
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
    console.line(f"wrote {plain(args.file)}, readable by its owner only")
    console.line(f"algorithm  {key.algorithm}")
    console.line(f"jkt        {key.jkt}")
    return 0


def _print(key: DPoPKey, console: Console, password: str | None) -> None:
    if password is not None:
        raise CommandError("a JWK is not encrypted: name a file that ends in .pem")
    console.note(f"a private key of {key.algorithm} with jkt {key.jkt} follows: keep it secret")
    console.json(key.private_jwk())


COMMAND = Command(
    name="keygen",
    summary="make a private key",
    examples="""\
  dpop-middleware keygen client.jwk
  dpop-middleware keygen --algorithm EdDSA --password @passphrase client.pem
""",
    add_arguments=_add_arguments,
    run=_run,
)
