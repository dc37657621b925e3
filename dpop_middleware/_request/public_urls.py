"""The target URI of a request, from the configuration (RFC 9449 section 4.3, RFC 9110 section 7.1)."""

import copy
import re
from binascii import a2b_qp
from collections.abc import Collection, Sequence
from typing import Final

from dpop_middleware._options import listed, refused
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._request.uri import (
    KEPT,
    MAX_PATH,
    NOT_IN_A_PATH,
    BaseURL,
    URIError,
    authority,
    encoded,
    has_dot_segment,
    octets_of,
)
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidDPoPProof, InvalidRequest

__all__ = [
    "PublicURLs",
    "absolute_form",
    "check_request_path",
    "request_path",
    "root_prefix",
    "strip_root_path",
    "target_uri",
]

_ABSOLUTE_FORM: Final = re.compile(
    r"(https?)://([^/?]{0,300}(?![^/?]))(.*)", re.ASCII | re.IGNORECASE | re.DOTALL
)
# Percent-encoding becomes quoted-printable, which is decoded at C speed: octets with a meaning there are
# replaced, and so is a slash, so that an encoded slash can be distinguished from it.
_QUOTED_PRINTABLE: Final = bytes.maketrans(b"%=\r\n/", b"=xxx\0")
_DECODED_DOTS: Final = (b"\0.\0", b"\0..\0")


class PublicURLs:
    """The base URLs by which clients call the application: hosts, and prefixes of each.

    Scheme and authority of a target URI come from here, never from `Host` or a forwarded header. Of several
    hosts, `Host` selects the one that it names exactly. Several prefixes of one host are distinguished by the
    path and the server's root path. Raises ConfigurationError for no URL, for a URL that isn't https (or http
    to a loopback host or one of `insecure_http_hosts`), for one that is there twice, and for two schemes of
    one host, which `Host` can't distinguish.
    """

    def __init__(self, urls: str | Sequence[str], *, insecure_http_hosts: Collection[str]) -> None:
        several = (urls,) if isinstance(urls, str) else listed(urls)
        if several is None:
            raise refused("public_url", "a URL or a sequence of URLs", urls)
        bases = [checked_url("public_url", url, insecure_http_hosts=insecure_http_hosts) for url in several]
        if not bases:
            raise refused("public_url", "at least one URL, by which clients call the API", urls)
        hosts: dict[str, list[BaseURL]] = {}
        for base in bases:
            others = hosts.setdefault(base.authority, [])
            if any(base.origin != other.origin for other in others):
                raise ConfigurationError(
                    f"public_url names {base.authority} with http and with https: Host doesn't name the "
                    "scheme, so give only the URL by which clients call it"
                )
            if base in others:
                raise ConfigurationError(f"public_url names {base.origin}{base.path} twice")
            others.append(base)
        self._hosts = {name: tuple(prefixes) for name, prefixes in hosts.items()}
        self._of_every_host = tuple(hosts[bases[0].authority]) if len(hosts) == 1 else None

    def as_sent(self) -> "PublicURLs":
        """Return the same hosts for a server that sees paths as clients sent them, with every prefix."""
        whole = copy.copy(self)
        whole._hosts = {name: (bases[0]._replace(path=""),) for name, bases in self._hosts.items()}
        whole._of_every_host = next(iter(whole._hosts.values())) if len(whole._hosts) == 1 else None
        return whole

    @property
    def origins(self) -> tuple[str, ...]:
        """Scheme and authority of each host by which clients call the application."""
        return tuple(bases[0].origin for bases in self._hosts.values())

    def origin_of(self, request: ResourceRequest) -> str | None:
        """Return the origin to which the request was sent, None if it isn't one of these hosts."""
        try:
            if not request.raw_path.startswith("/"):
                request = self._from_absolute_form(request)
            return self._bases(request.hosts)[0].origin
        except (URIError, InvalidRequest, InvalidDPoPProof):
            return None

    def origin_form(self, request: ResourceRequest) -> ResourceRequest:
        """Return the request with its target in origin form; one that has that form is returned as it is.

        A target in absolute form (RFC 9112 section 3.2.2) must name the origin of one of the base URLs. Its
        authority then replaces the value of `Host` in `hosts`. Raises InvalidRequest for another origin, and
        for a path that servers and frameworks could read in different ways.
        """
        try:
            if request.raw_path[:1] != "/":
                request = self._from_absolute_form(request)
            check_request_path(request.raw_path)
        except URIError as error:
            raise InvalidRequest(
                "the path of the request is malformed, over 4 KiB, or has dot segments",
                check=Check.TARGET,
                actual=str(error),
            ) from error
        return request

    def _from_absolute_form(self, request: ResourceRequest) -> ResourceRequest:
        target = absolute_form(request.raw_path)
        if target is None:
            return request
        origin, rest = target
        for name, bases in self._hosts.items():
            if bases[0].origin == origin:
                return request._replace(raw_path=rest if rest.startswith("/") else "/" + rest, hosts=(name,))
        raise InvalidRequest(
            "the request target names another origin than this resource server's",
            check=Check.TARGET,
            expected=self.origins,
            actual=origin,
        )

    def is_target(self, uri: str, request: ResourceRequest) -> bool:
        """Whether `uri` is exactly the request's target URI, without its query.

        A client signs the URL that it sends, so most proofs contain this string. False is not a verdict yet:
        `target_uri` returns the normal form. It is False for a path with characters that a path can't have,
        and where a proxy removed the path of the base URL and there is also a root path to remove. The
        request must come from `origin_form`. Raises InvalidDPoPProof as `target_uri` does.
        """
        bases = self._of_every_host or self._bases(request.hosts)
        if len(bases) != 1 or (bases[0].path and request.root_path):
            return False
        path = request.raw_path
        return uri == bases[0].origin + bases[0].path + path and not NOT_IN_A_PATH.search(path)

    def target_uri(self, request: ResourceRequest) -> str:
        """Return the request's target URI in normal form, without its query.

        Raises InvalidDPoPProof where `Host` selects none of several hosts, where neither path nor root path
        begins with one of several prefixes, and for a path with too many characters to rewrite. The request
        must come from `origin_form`.
        """
        bases = self._bases(request.hosts)
        try:
            if len(bases) == 1:
                return target_uri(bases[0], request.raw_path, request.root_path)
            return bases[0].origin + _public_path(bases, request_path(request.raw_path), request.root_path)
        except URIError as error:
            raise InvalidDPoPProof(
                "the htu of the DPoP proof is not the URI of the request, character by character",
                check=Check.HTU,
                actual=str(error),
            ) from error

    def _bases(self, hosts: tuple[str, ...]) -> tuple[BaseURL, ...]:
        if self._of_every_host is not None:
            return self._of_every_host
        if len(hosts) == 1:
            for name, bases in self._hosts.items():
                try:
                    if authority(hosts[0], scheme=bases[0].scheme) == name:
                        return bases
                except URIError:
                    break
        raise InvalidDPoPProof(
            "the Host field names no URL of this resource server",
            check=Check.HTU,
            expected=tuple(self._hosts),
            actual=hosts,
        )


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _public_path(bases: tuple[BaseURL, ...], path: str, root_path: str) -> str:
    """Return the path that the client called, where several prefixes of one host lead to the application.

    The result depends on the root path alone, so that two paths of one server never get the same URI unless
    routers treat them as one too:

    - a root path that is one of the prefixes, or lies above or below one, is the prefix that a proxy
      stripped;
    - any other is the server's own and is removed;
    - without one, the path is as the client sent it.

    The path must begin with a prefix then. It doesn't if a proxy strips it and the server has no root path.
    """
    prefixes = [base.path for base in bases if base.path]
    root = root_prefix(root_path)
    public = strip_root_path(path, root_path)
    if any(_is_below(root, prefix) or _is_below(prefix, root) for prefix in prefixes):
        public = root + public
    if any(_is_below(public, prefix) for prefix in prefixes):
        return public
    if len(prefixes) < len(bases):
        return path
    raise InvalidDPoPProof(
        "the path begins with no prefix of this resource server",
        check=Check.HTU,
        expected=tuple(base.origin + base.path for base in bases),
        actual=path,
    )


def check_request_path(raw_path: str) -> None:
    """Raise URIError for a path that is ambiguous or over 4 KiB; the cost depends on the length alone."""
    if len(raw_path) > MAX_PATH:
        raise URIError("the request's path is too long")
    if raw_path[:1] != "/":
        raise URIError("the request's path doesn't start with a slash, or needs too much percent-encoding")
    if "/." not in raw_path and not raw_path.encode("latin-1", "replace").translate(None, KEPT):
        return
    octets = octets_of(raw_path.partition("?")[0])
    if b"%00" in octets or b"\0" in octets:
        # Below, this octet represents a slash.
        if has_dot_segment(encoded(octets.decode("latin-1"))):
            raise URIError("the request's path has a dot segment")
        return
    decoded = octets.translate(_QUOTED_PRINTABLE)
    if b"%" in octets:
        decoded = a2b_qp(decoded)
        if len(octets) - len(decoded) != 2 * octets.count(b"%"):
            raise URIError("the percent-encoding is malformed")
    if b"\0." in decoded and (
        any(dots in decoded for dots in _DECODED_DOTS) or decoded.endswith((b"\0.", b"\0.."))
    ):
        raise URIError("the request's path has a dot segment")


def request_path(raw_path: str) -> str:
    """Return a request's own path in normal form, without query (RFC 3986 section 6.2.2).

    `raw_path` is the path of the request line, one character for each octet, and passed `check_request_path`.
    A path is treated as in `normalize`, with two differences: characters that a path can't have are all
    percent-encoded, octet by octet, and there is no dot segment to remove. A `#` is such a character, not the
    start of a fragment: a request has none, and servers route by the text after it.

    Raises URIError for more than 256 characters to percent-encode.
    """
    return encoded(raw_path.partition("?")[0])


def absolute_form(target: str) -> tuple[str, str] | None:
    """Return origin, in normal form, and rest of a request target in absolute form, None for another form.

    RFC 9112 section 3.2.2. `target` is the target in the request line; the rest, as it was sent, is empty or
    starts with a slash or a question mark. Raises URIError for user information and a malformed authority.
    """
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        return None
    scheme = match[1].lower()
    return f"{scheme}://{authority(match[2], scheme=scheme)}", match[3]


def root_prefix(root_path: str) -> str:
    """Return an ASGI `root_path` in the normal form of paths, without trailing slashes.

    `root_path` is decoded, as in ASGI.
    """
    # surrogatepass: a root path that isn't Unicode matches nothing, and raises nothing.
    octets = root_path.rstrip("/").encode("utf-8", "surrogatepass").replace(b"%", b"%25")
    return encoded(octets.decode("latin-1"))


def strip_root_path(path: str, root_path: str) -> str:
    """Return `path` without the ASGI `root_path` at its start, else `path` itself.

    `path` is the result of `request_path`; `root_path` is decoded, as in ASGI, and a trailing slash doesn't
    count. It is removed at a segment boundary only: `/svc` from `/svc/x`, never from `/svcs/x`. The rest
    starts with a slash or is empty (`/svc` from `/svc`), so that it can be appended to a prefix.
    """
    rest = path.removeprefix(root_prefix(root_path))
    return path if rest[:1] not in ("", "/") else rest


def target_uri(base: BaseURL, raw_path: str, root_path: str) -> str:
    """Return the target URI of a request, in normal form and without query (RFC 9449 section 4.3).

    Scheme and authority are `base`'s. Where `base` has a path, a proxy stripped that prefix: `root_path` is
    removed from the raw path (`strip_root_path`), then the prefix put before it. `request_path` says which
    raw paths it may be, and which raise URIError.
    """
    path = request_path(raw_path)
    if not base.path:
        return base.origin + path
    return base.origin + base.path + strip_root_path(path, root_path)
