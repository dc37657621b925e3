"""The parts of a subcommand."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from dpop_middleware.cli.console import Console

__all__ = ["PRIVATE_KEY", "Command"]

PRIVATE_KEY = "a private key, JWK or PEM: the name of a file, or - for standard input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand: its name, the texts for `--help`, its arguments, and its function.

    `run` returns the exit status, or raises CommandError.
    """

    name: str
    summary: str
    examples: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Console], int]
