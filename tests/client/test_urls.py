"""Origins, what each of them said last, and percent-encoding; test_key.py tests `htu` with whole proofs."""

import pytest

from dpop_middleware.client.urls import OriginMemory, origin_of, target_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("HTTPS://API.example.com:443/a?b#c", "https://api.example.com"),
        ("http://user:pass@127.0.0.1:80/", "http://127.0.0.1"),
        ("wss://api.example.com:8443/socket", "https://api.example.com:8443"),
        ("ws://[2001:DB8:0:0:0:0:0:1]/", "http://[2001:db8::1]"),
        ("https://api.example.com@attacker.example/", "https://attacker.example"),
        ("https://api.example.com?@attacker.example/", "https://api.example.com"),
    ],
)
def test_an_origin_has_one_form(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["api.example.com", "file:///etc", "https://", "https://h ost/", "https://a@b@c"]
)
def test_a_value_that_is_no_url_is_refused(url: str) -> None:
    for function in (origin_of, target_of):
        with pytest.raises(ValueError, match="absolute"):
            function(url)


@pytest.mark.parametrize(
    ("path", "signed"),
    [
        ("/a\\b", "/a%5Cb"),
        ('/a|b^c"d{e}', "/a%7Cb%5Ec%22d%7Be%7D"),
        ("/100%", "/100%25"),
        ("/100%2", "/100%252"),
        ("/a%5Cb/%e4", "/a%5Cb/%e4"),
        ("/a'(b)", "/a'(b)"),
    ],
)
def test_characters_that_a_path_can_not_contain_are_signed_percent_encoded(path: str, signed: str) -> None:
    assert target_of(f"https://api.example.com{path}?q=|#f") == f"https://api.example.com{signed}"


def test_each_origin_has_its_own_nonce_and_the_last_counts() -> None:
    memory: OriginMemory[str] = OriginMemory()
    memory.remember("https://a", "1")
    memory.remember("https://b", "2")
    memory.remember("https://a", "3")
    assert [memory.get(origin) for origin in ("https://a", "https://b", "https://c")] == ["3", "2", None]


def test_the_origin_with_the_oldest_nonce_is_forgotten() -> None:
    memory: OriginMemory[str] = OriginMemory(limit=2)
    for origin in ("a", "b", "a", "c"):
        memory.remember(origin, f"nonce of {origin}")
    assert [memory.get(origin) for origin in ("a", "b", "c")] == ["nonce of a", None, "nonce of c"]
