"""The command `dpop-middleware`: make keys and proofs, and see how a server judges them.

From the top down:

    keys.py          keygen, proof and thumbprint
    conformance.py   conformance: the suite against a running server
    demo.py          demo: a client and a thief in this process
    explain.py       explain: its options, and the request that they describe
    explanation.py   the checks of one request, judged as a server does
    later_checks.py  the checks that the server doesn't reach
    findings.py      the results as rows, and how they are printed
    token_judge.py   the verifier of explain's access token, by the options
    inputs.py        secrets, keys, times and captured requests
    console.py       the output, and the common parts of all commands
"""

import argparse
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from traceback import extract_tb
from typing import Final, NoReturn

from dpop_middleware.cli import conformance, demo, explain, keys
from dpop_middleware.cli.console import CommandError, Console
from dpop_middleware.errors import ConfigurationError

__all__ = ["main"]

_PROG: Final = "dpop-middleware"
_COMMANDS: Final = (
    keys.KEYGEN,
    keys.PROOF,
    keys.THUMBPRINT,
    explain.COMMAND,
    conformance.COMMAND,
    demo.COMMAND,
)
_LACKING: Final = re.compile(r"argument (--[a-z-]+): expected one argument")
# Of a token or a nonce one in 64 begins with a hyphen.
_OPAQUE: Final = ("--token", "--nonce")
_INTERRUPTED: Final = 130
_INTERNAL: Final = 70
# The commands print what the library logs. Without this handler it would appear twice, and unescaped.
_SILENT: Final = logging.NullHandler()

_EPILOG: Final = """\
examples:
  dpop-middleware demo
  dpop-middleware keygen client.jwk
  dpop-middleware proof GET https://api.example.com/notes --key client.jwk --token @t.txt --curl
  dpop-middleware explain --method GET --url https://api.example.com/notes --proof @proof.txt --token @t.txt

Tokens and proofs are read from standard input with -, from a file with @FILE, so that they stay out of the
shell's history. Each command has more examples: see dpop-middleware COMMAND --help.
"""


class _Parser(argparse.ArgumentParser):
    """Reports a usage error in one sentence, without the whole usage text."""

    def error(self, message: str) -> NoReturn:
        lacking = _LACKING.fullmatch(message)
        if lacking is not None:
            message = f"{message}, and {lacking[1]}=VALUE for one that begins with a hyphen"
        raise CommandError(f"{message}: see {self.prog} --help")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples, and each option on one line with its help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _version() -> str:
    try:
        return metadata.version("dpop_middleware")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROG,
        description="Make keys and proofs for DPoP (RFC 9449), and see why a server refuses them.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        added = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{command.examples}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, by default the process's own, and return its exit status.

    0 is success, 1 a refusal or a wrong answer, 2 a usage error, 3 a server or keys that can't be reached, 70
    a bug in the command itself, 130 an interruption. Raises SystemExit for `--help` and `--version` only.
    """
    logging.getLogger("dpop_middleware").addHandler(_SILENT)
    # Python has no stream for a descriptor that was closed, as by `>&-`.
    console = Console(sys.stdout or io.StringIO(), sys.stderr or io.StringIO(), environ=os.environ)
    try:
        args = _parser().parse_args(_with_values_joined(sys.argv[1:] if argv is None else argv))
        status: int = args.run(args, console)
        console.flush()
    except CommandError as error:
        return _failed(console, str(error), error.status)
    except ConfigurationError as error:
        return _failed(console, str(error), 2)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe: the interpreter's final flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a traceback doesn't help the user, and may contain a secret
        last = extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        return _failed(console, f"internal error, please report it: {where}", _INTERNAL)
    return status


def _with_values_joined(argv: Sequence[str]) -> list[str]:
    """Return the arguments, so that a token or nonce that begins with a hyphen isn't read as an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in _OPAQUE and word[:1] == "-" and word[1:2] not in ("", "-"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _failed(console: Console, message: str, status: int) -> int:
    console.note(f"{_PROG}: {message}")
    return status
