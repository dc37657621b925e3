"""Messages about options all have one form, and contain the given value."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dpop_middleware import _options as options
from dpop_middleware._request.public_paths import PublicPaths
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.secure_url import checked_hosts
from dpop_middleware.client.form_request import checked_resources
from dpop_middleware.client.urls import named_urls
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.claims import checked_token_types


def test_valid_options_are_returned() -> None:
    assert options.flag("strict", False) is False
    assert options.choice("nonce", "off", ("off", "required")) == "off"
    assert options.seconds("lifetime", 1.5, minimum=1, maximum=2) == 1.5
    assert options.share("max_share", 1) == 1
    assert options.whole_number("entries", 0) == 0
    assert options.names("audience", ["a", "b"]) == ("a", "b")
    assert options.names_or_one("audience", "a") == options.names_or_one("audience", ["a"]) == ("a",)
    assert options.tokens("scopes", ["a:b"]) == ("a:b",)
    assert options.tokens("scopes", ()) == ()
    assert options.strings("scopes", iter(["a b", "c"])) == ("a b", "c")
    assert options.namespace("replay_namespace", "") == ""
    assert options.namespace("replay_namespace", "gäteway 1") == "gäteway 1"
    assert options.field_name("uri_header", "X-Original-URI") == "x-original-uri"
    assert options.clock(lambda: 1.0)() == 1.0
    assert options.text("description", "") == ""
    assert options.path("path", "/", such_as="/nonce") == "/"
    assert options.credential("client_secret", " ü:1 ") == " ü:1 "


class Part:
    def add(self) -> None: ...


def test_an_object_provides_its_methods_and_its_class_does_not() -> None:
    assert options.provides(Part(), "add")
    assert not options.provides(Part(), "add", "verify")
    assert not options.provides(Part, "add")


@pytest.mark.parametrize("value", [None, True, "60", math.nan, math.inf, 0.5, 301, [60]])
def test_seconds_outside_their_bounds_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.seconds("skew", value, minimum=1, maximum=300)
    assert str(caught.value) == f"skew takes a finite number of seconds, from 1 to 300, not {value!r}"


def test_seconds_may_have_no_upper_bound() -> None:
    with pytest.raises(ConfigurationError, match="a finite number of seconds, at least 1, not 0"):
        options.seconds("lifetime", 0, minimum=1)
    with pytest.raises(ConfigurationError, match="seconds, at least 1, not 1000"):
        options.seconds("lifetime", 10**400, minimum=1)


NAMES = "a sequence of non-empty strings"
STRINGS = "strings without spaces, quotes and backslashes"


@pytest.mark.parametrize(
    ("check", "value", "takes"),
    [
        (options.flag, "yes", "True or False"),
        (partial(options.choice, choices=("off", "required")), "on", "one of 'off', 'required'"),
        (partial(options.choice, choices=("off",)), ["off"], "one of 'off'"),
        (options.share, 0, "a number above 0 and at most 1"),
        (options.share, True, "a number above 0 and at most 1"),
        (options.share, "1", "a number above 0 and at most 1"),
        (partial(options.whole_number, of=" of bytes"), -1, "a whole number of bytes of at least 0"),
        (options.whole_number, 1.0, "a whole number of at least 0"),
        (partial(options.whole_number, minimum=1), True, "a whole number of at least 1"),
        (options.names, "a", NAMES),
        (options.names, [], NAMES),
        (options.names, [""], NAMES),
        (options.names, 5, NAMES),
        (options.text, 5, "a text"),
        (partial(options.text, least=1), "", "a text"),
        (options.namespace, None, "a printable text of at most 200 characters"),
        (options.namespace, b"x", "a printable text of at most 200 characters"),
        (options.namespace, "x" * 201, "a printable text of at most 200 characters"),
        (options.namespace, "a\nb", "a printable text of at most 200 characters"),
        (options.tokens, "a", "a sequence of strings, such as ('notes:read',)"),
    ],
)
def test_the_sentence_says_what_the_option_takes_and_what_it_was_given(
    check: Any, value: Any, takes: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check("the_option", value)
    assert str(caught.value) == f"the_option takes {takes}, not {value!r}"


@pytest.mark.parametrize("value", ["a b", 'a"b', "", 1])
def test_of_several_tokens_the_wrong_one_is_named(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.tokens("scopes", ["right", value])
    assert str(caught.value) == f"scopes takes {STRINGS}, not {value!r}"


@pytest.mark.parametrize("value", ["nonce", "", b"/nonce", None])
def test_a_path_without_a_slash_at_its_start_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.path("path", value, such_as="/nonce")
    assert str(caught.value) == f"path takes a path that starts with a slash, such as '/nonce', not {value!r}"


@pytest.mark.parametrize("value", ["notes:read", "", None, 7, b"notes:read", [7], ["notes:read", None]])
def test_one_string_is_no_sequence_of_strings(value: Any) -> None:
    # Of each character it would make a scope of its own.
    with pytest.raises(ConfigurationError, match="scopes takes a sequence of strings, such as"):
        options.strings("scopes", value)


KEYS: Any = {"notes:read": "https://api.example.test"}
URLS: Any = {"https://api.example.test": "/v1"}


@pytest.mark.parametrize(
    ("option", "configure"),
    [
        ("scopes", lambda: options.strings("scopes", KEYS)),
        ("any_of", lambda: options.tokens("any_of", KEYS)),
        ("audience", lambda: options.names("audience", KEYS)),
        ("audience", lambda: options.names_or_one("audience", KEYS)),
        ("resource", lambda: checked_resources(KEYS)),
        ("origin", lambda: named_urls("origin", KEYS, ())),
        ("public_url", lambda: PublicURLs(URLS, insecure_http_hosts=())),
        ("public_paths", lambda: PublicPaths({"/health": True})),
        ("insecure_http_hosts", lambda: checked_hosts({"auth": True})),
        ("token_types", lambda: checked_token_types({"at+jwt": True})),
    ],
)
def test_a_mapping_is_no_sequence_of_its_keys(option: str, configure: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option} takes .*, not \{{'"):
        configure()


def test_a_clock_is_a_function() -> None:
    five: Any = 5
    with pytest.raises(ConfigurationError, match=r"^clock takes a function .*, such as time.time, not 5$"):
        options.clock(five)


class Asynchronous:
    async def __call__(self, _: object = None) -> float:
        raise NotImplementedError


@pytest.mark.parametrize(
    "function", [Asynchronous(), Asynchronous().__call__, partial(Asynchronous().__call__, 1)]
)
def test_nothing_awaits_the_result_of_a_clock_a_listener_or_a_predicate(function: Any) -> None:
    for check in (options.clock, partial(options.listener, "on_event")):
        with pytest.raises(ConfigurationError, match="takes a .*function.*, not "):
            check(function)
    with pytest.raises(ConfigurationError, match="claims takes synchronous functions, not "):
        options.predicates("claims", {"roles": function})


@pytest.mark.parametrize(
    "value",
    ["redis://:s3cr3t@host", b"s3cr3t", {"kty": "EC", "d": "s3cr3t"}, ["s3cr3t"], {"s3cr3t": 1}.keys()],
)
def test_of_a_text_or_a_collection_in_place_of_a_part_only_the_type_is_shown(value: object) -> None:
    assert options.part("replay_store", 1, "a store", fits=True) == 1
    with pytest.raises(ConfigurationError) as caught:
        options.part("replay_store", value, "a store", fits=False)
    assert str(caught.value) == f"replay_store takes a store, not a {type(value).__name__}"
    with pytest.raises(ConfigurationError, match="^replay_store takes a store, not 5$"):
        options.part("replay_store", 5, "a store", fits=False)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("", "an empty one"),
        ("s3cret\n", "one with a line break or another control character"),
        ("s3\x7fcret", "one with a line break or another control character"),
        (None, "a NoneType"),
        (b"s3cret", "a bytes"),
        (3, "a int"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_quoting_it(value: Any, wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.credential("client_secret", value)
    assert str(caught.value) == f"client_secret takes a non-empty string, not {wrong}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://me:hush@api", "'https://...@api'"),
        ([" https://me:hush@api/"], "[' https://...@api/']"),
        (("//hush@api",), "('//...@api',)"),
        (b"redis://:hush@cache:6379", "b'redis://...@cache:6379'"),
        ("https://me:h#u/s?h@api", "'https://...@api'"),
        ("https://me:h@us/h@api", "'https://...@api'"),
        ("redis://me:12/3@api", "'redis://...@api'"),
        ("redis://me:12#3@api", "'redis://...@api'"),
        ("redis://me:12?3@api", "'redis://...@api'"),
        ("https://hu/sh@api#", "'https://...@api#'"),
        ("https://hu//sh@api//", "'https://...@api//'"),
        ("https://me:hu\nsh@api", "'https://...@api'"),
        (["https://me:hu', 'sh@api"], '["https://...@api"]'),
        (["https://me:hush@api", "https://you:hush@other"], "['https://...@other']"),
        ("https://api:8080/@me", "'https://...@me'"),
        ("me@api//", "'me@api//'"),
        ("me@api", "'me@api'"),
    ],
)
def test_an_error_shows_no_password_in_a_url_wherever_it_was_given(value: object, shown: str) -> None:
    """What could be one: a URL with an @ in its path or query loses what is before that."""
    assert str(options.refused("host", "a name", value)) == f"host takes a name, not {shown}"
