"""The options of a verifier are checked at the start."""

import re
import ssl
import subprocess
import sys
from typing import Any

import pytest

from dpop_middleware import introspection
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier

USUAL: dict[str, Any] = {
    "issuer": "https://auth.example.com",
    "audience": "https://api.example.com",
    "client_authentication": ClientSecretBasic(client_id="api", client_secret="hidden"),
}


def anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"issuer": "http://auth.example.com"}, "issuer takes an https URL"),
        (
            {"issuer": "https://auth.example.com/.well-known/openid-configuration"},
            "issuer takes the issuer's identifier, such as 'https://auth.example.com', not the URL",
        ),
        ({"endpoint": "http://auth.example.com/introspect"}, "endpoint takes an https URL"),
        ({"endpoint": "https://auth.example.com/a#b"}, "endpoint takes an https URL"),
        ({"audience": ()}, "audience takes a sequence"),
        ({"client_authentication": ("api", "hidden")}, "client_authentication takes a ClientSecretBasic"),
        ({"accept_missing_audience": "yes"}, "accept_missing_audience takes True or False"),
        ({"required_claims": "exp"}, "required_claims takes a sequence"),
        ({"signed_answers": 1}, "signed_answers takes True or False"),
        ({"signed_answers": True, "algorithms": ("none",)}, "algorithms takes some of"),
        ({"active_lifetime": -1}, "active_lifetime takes a finite number of seconds, from 0 to 3600"),
        ({"inactive_lifetime": 4000}, "inactive_lifetime takes a finite number"),
        ({"timeout": 0}, "timeout takes a finite number of seconds, from 0.1 to 60"),
        ({"patience": 61}, "patience takes a finite number of seconds, from 0.1 to 60"),
        ({"clock_skew": 301}, "clock_skew takes"),
        ({"clock": 7}, "clock takes a function"),
        ({"max_connections": 1}, "max_connections takes a whole number of at least 2"),
        ({"max_unknown_per_second": 0}, "max_unknown_per_second takes a whole number of at least 1"),
        ({"max_cached_tokens": -1}, "max_cached_tokens takes a whole number"),
        ({"ssl_context": anybody()}, "ssl_context takes one that checks"),
        ({"proxy": "socks5://user:hidden@proxy:1080"}, "proxy takes 'environment', None or the URL"),
    ],
)
def test_a_wrong_option_says_what_it_takes(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        IntrospectionVerifier(**(USUAL | options))
    assert "hidden" not in str(caught.value)


def test_the_verifier_reports_its_issuer_and_clock_skew() -> None:
    verifier = IntrospectionVerifier(**USUAL, clock_skew=7)
    assert verifier.issuers == ("https://auth.example.com",)
    assert verifier.clock_skew == 7
    assert verifier.remote is True
    assert not hasattr(verifier, "expiry_is_final")


@pytest.mark.parametrize("missing", ["httpx2", "httpx2._client"])
def test_without_httpx2_the_error_says_what_to_install(missing: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import dpop_middleware.introspection as introspection\n"
        "introspection.ClientSecretBasic(client_id='api', client_secret='hidden')\n"
        "try:\n    introspection.IntrospectionVerifier\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert ("python -m pip install '.[introspection]'" in done.stdout) is (missing == "httpx2")


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'verify'"):
        introspection.verify  # noqa: B018
    assert all(hasattr(introspection, name) for name in introspection.__all__)
