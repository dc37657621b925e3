"""The target URI of a request, from our own configuration (RFC 9449 section 4.3, RFC 9110 section 7.1)."""

from collections.abc import Collection, Iterable, Sequence

from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._request.uri import (
    BaseURL,
    URIError,
    authority,
    check_request_path,
    sent_uri,
    target_uri,
)
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidDPoPProof, InvalidRequest

__all__ = ["PublicURLs"]


class PublicURLs:
    """The base URLs by which clients call the application.

    Scheme and authority of a target URI come from here, never from `Host` or a forwarded header. Of several
    base URLs, `Host` selects the one that it names exactly. Raises ConfigurationError for none, for a URL
    that isn't https (or http to a loopback host or one of `insecure_http_hosts`), and for two of one host.
    """

    def __init__(self, urls: str | Sequence[str], *, insecure_http_hosts: Collection[str]) -> None:
        if isinstance(urls, bytes) or not isinstance(urls, Iterable):
            raise ConfigurationError(f"public_url takes a URL or a sequence of URLs, not {urls!r}")
        listed = (urls,) if isinstance(urls, str) else tuple(urls)
        self._bases = tuple(
            checked_url("public_url", url, insecure_http_hosts=insecure_http_hosts) for url in listed
        )
        if not self._bases:
            raise ConfigurationError("public_url is empty: name the URL by which clients call the API")
        if len({base.authority for base in self._bases}) < len(self._bases):
            raise ConfigurationError("public_url names one host twice: Host must select exactly one URL")

    def _base(self, hosts: tuple[str, ...]) -> BaseURL:
        if len(self._bases) == 1:
            return self._bases[0]
        if len(hosts) == 1:
            for base in self._bases:
                try:
                    if authority(hosts[0], scheme=base.scheme) == base.authority:
                        return base
                except URIError:
                    break
        raise InvalidDPoPProof(
            "the Host field names no URL of this resource server",
            check=Check.HTU,
            expected=tuple(base.authority for base in self._bases),
            actual=hosts,
        )

    @staticmethod
    def check_path(request: ResourceRequest) -> None:
        """Raise InvalidRequest for a path that servers and frameworks could read in different ways."""
        try:
            check_request_path(request.raw_path)
        except URIError as error:
            raise InvalidRequest(
                "the path of the request is malformed or has dot segments",
                check=Check.TARGET,
                actual=str(error),
            ) from error

    def is_target(self, uri: str, request: ResourceRequest) -> bool:
        """Whether `uri` is the request's target URI, without its query and letter by letter.

        False says nothing yet: `target_uri` tells the normal form. Raises InvalidDPoPProof as that does.
        """
        return uri == sent_uri(self._base(request.hosts), request.raw_path)

    def target_uri(self, request: ResourceRequest) -> str:
        """Return the request's target URI in normal form, without its query.

        Raises InvalidDPoPProof where `Host` selects none of several base URLs, and for a path of which too
        much would have to be rewritten. The path must have passed `check_path`.
        """
        base = self._base(request.hosts)
        try:
            return target_uri(base, request.raw_path, request.root_path)
        except URIError as error:
            raise InvalidDPoPProof(
                "the htu of the DPoP proof is not the URI of the request, letter by letter",
                check=Check.HTU,
                actual=str(error),
            ) from error
