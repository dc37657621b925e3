"""A guess at why a proof or token failed, for logs and for whoever debugs; never for the client."""

from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError

__all__ = ["guess"]

# In seconds the year 5138, in milliseconds 1973.
_FAR_AWAY = 100_000_000_000


def _parts(uri: str) -> tuple[str, str, str]:
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    return scheme, authority, "/" + path


def _of_htu(expected: str, actual: str) -> str | None:
    if "://" not in actual:
        return "the client must sign the absolute URL that it calls"
    our_scheme, our_authority, our_path = _parts(expected)
    scheme, authority, path = _parts(actual)
    if authority == our_authority and path == our_path:
        return f"scheme differs ({scheme}, not {our_scheme}): TLS ends at a proxy? set public_url"
    if scheme == our_scheme and path == our_path:
        return f"host differs: clients call {authority}? set public_url"
    if path.rstrip("/") == our_path.rstrip("/"):
        return "trailing slash, or scheme or host, differs: sign the URL that is sent, after redirects"
    if path.endswith(our_path):
        return "the path has a prefix that is missing here: a proxy strips it? add it to public_url"
    if our_path.endswith(path):
        return "the path lacks a prefix that is here: does public_url have one too many?"
    return None


def _of_iat(expected: object, actual: object) -> str | None:
    if not isinstance(actual, (int, float)):
        return None
    if actual > _FAR_AWAY:
        return "iat is in milliseconds? it must be in seconds"
    if not isinstance(expected, tuple):
        return None
    earliest, latest = expected
    if actual > latest:
        return f"iat is {actual - latest:.0f} s too late: does the client's clock run fast?"
    return f"iat is {earliest - actual:.0f} s too early: an old proof, or a slow clock?"


def guess(error: DPoPError) -> str | None:
    """Return a likely cause of `error` in one sentence, None where there is none to name."""
    if error.check is Check.HTU and isinstance(error.expected, str) and isinstance(error.actual, str):
        return _of_htu(error.expected, error.actual)
    if error.check is Check.IAT:
        return _of_iat(error.expected, error.actual)
    if error.check is Check.HTM and isinstance(error.actual, str) and error.actual.upper() == error.expected:
        return "methods are case-sensitive: sign the method in upper case"
    return None
