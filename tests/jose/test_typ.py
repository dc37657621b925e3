"""Media types in `typ` (RFC 7515 section 4.1.9)."""

import pytest

from dpop_middleware.jose.typ import media_type


@pytest.mark.parametrize("typ", ["dpop+jwt", "DPoP+JWT", "application/dpop+jwt", "APPLICATION/DPOP+JWT"])
def test_one_media_type_has_several_spellings(typ: str) -> None:
    assert media_type(typ) == "dpop+jwt"


@pytest.mark.parametrize("typ", [None, 1, True, [], {}, b"jwt", "jw\u017f", "to\u212aen", "é"])
def test_a_value_that_names_no_media_type_gives_none(typ: object) -> None:
    assert media_type(typ) is None


@pytest.mark.parametrize(
    ("typ", "name"),
    [
        ("", ""),
        ("application/", "application/"),
        ("application/x/y", "application/x/y"),
        ("application/application/jwt", "application/application/jwt"),
        ("Text/JWT", "text/jwt"),
        ("JWT;v=1", "jwt;v=1"),
        (" jwt", " jwt"),
    ],
)
def test_nothing_else_is_unified(typ: str, name: str) -> None:
    assert media_type(typ) == name
    assert media_type(name) == name
