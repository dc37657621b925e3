"""Honest requests, altered one thing at a time, signed again: our verdict is that of a second judge."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpop_middleware import MemoryReplayStore, ResourceRequest, ResourceServer
from dpop_middleware.errors import DPoPError
from tests.support.api import NOW, RESOURCE, Clock, Tokens
from tests.support.judges import AUTHORIZATION, TOKEN, URL, Judges
from tests.support.oracle import Asked, b64, faults
from tests.support.signer import ALGORITHMS, Signer, encoded, signer

Change = tuple[str, Any]


RETYPED: list[Any] = [
    ..., None, True, False, 0, 1, -1, 1.5, 1e300, 10**300, "", "x", " ", "0", "é", "\u0000", "😀", "null", [],
    {}, ["x"], {"x": 1},
]  # fmt: skip


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


HTUS = [
    "HTTPS://API.EXAMPLE.TEST/notes", "https://api.example.test:443/notes", "https://api.example.test:/notes",
    "https://api.example.test:0443/notes", "https://api.example.test:443443/notes",
    "https://api.example.test:80/notes", "http://api.example.test/notes", "http://api.example.test:443/notes",
    "https://api.example.test/notes?", "https://api.example.test/notes#",
    "https://api.example.test/notes?a=/../b#c", "https://api.example.test/%6eotes",
    "https://api.example.test/%6Eotes", "https://api.example.test/x/../notes",
    "https://api.example.test/x/%2E%2e/notes", "https://api.example.test/./notes",
    "https://api.example.test/../notes", "https://api.example.test/notes/.",
    "https://api.example.test/notes/x/..", "https://api.example.test/notes/",
    "https://api.example.test//notes", "https://api.example.test/Notes", "https://api.example.test/notes%20",
    "https://api.example.test/notes ", " https://api.example.test/notes", "https://api.example.test/notes\t",
    "https://api.example.test\\notes", "https://api.example.test/notes%", "https://api.example.test/notes%2",
    "https://api.example.test/notes%zz", "https://u@api.example.test/notes",
    "https://u:p@api.example.test/notes", "https://@api.example.test/notes",
    "https://api.example.test./notes", "https://api.example.test.evil/notes",
    "https://xn--80ak6aa92e.test/notes", "https://api.example.test@evil/notes",
    "https:/api.example.test/notes", "https:api.example.test/notes", "//api.example.test/notes", "/notes",
    "notes", "https:///notes", "https://api.example.test", "ftp://api.example.test/notes",
    "wss://api.example.test/notes", "https://[::1]/notes", "https://[::1/notes", "https://[v1.x]/notes",
    "https://[::1%25eth0]/notes", "https://api.example.test:99999/notes", "https://?/notes",
    "https://api.example.test:+443/notes", "https://api.example.test:４４３/notes",
    "ｈttps://api.example.test/notes", "https://api.example.test/notes;x", "https://api.example.test/notes%3B",
    "https://api%2Eexample.test/notes", "https://api.example.test/note%C5%BF",
    "https://api.example.test/noteſ", "javascript://api.example.test/notes",
    "https://api.example.test/notes?q=ü", "https://api.example.test/notes#\u2028 \n\\",
    "https://api.example.test/notes?q=%zz", "https://api.example.test/x\xe4/../notes",
    "https://api.example.test/notes\xa0", "https://api.example.test/notes\x85",
    "https://\xe4pi.example.test/notes", "https://api\u3002example.test/notes",
    "https://api.example.test\uff0fnotes", "https://api.example.test?/notes",
]  # fmt: skip


def claim_changes(key: Signer) -> Iterator[Change]:
    for name in ("jti", "htm", "htu", "iat", "ath", "exp", "nbf", "nonce", "iss", "sub", "aud", "cnf", "x"):
        for value in RETYPED:
            yield name, value
    for length in (1, 128, 129, 511, 512, 513, 5000):
        yield "jti", "j" * length
    for htm in ("get", "Get", "GET ", " GET", "POST", "GE", "GETX", "*", "G\u0395T"):
        yield "htm", htm
    for htu in HTUS:
        yield "htu", htu
    for time in (90, 90.01, 89.9, 75, 60, 61, 0, -15, -16, -30, -30.01, -29.9, -3600, 3600):
        yield "iat", NOW - time
        yield "exp", NOW - time
        yield "nbf", NOW - time
    for moment in (str(int(NOW)), [NOW], NOW * 1000, 253402300799, 253402300800, 0, -0.0, 1e308):
        yield "iat", moment
        yield "exp", moment
        yield "nbf", moment
    ath = key.claims("GET", URL, token=TOKEN, now=NOW)["ath"]
    for value in (ath + "=", ath[:-1], ath.lower(), f" {ath}", ath + "\n", TOKEN, b64(b"x" * 32), [ath]):
        yield "ath", value
    yield "x", nested(40)
    yield "x", nested(31)
    yield "x", "é" * 3000


def header_changes(key: Signer) -> Iterator[Change]:
    for name in (
        "typ",
        "alg",
        "jwk",
        "crit",
        "b64",
        "zip",
        "kid",
        "x5c",
        "jku",
        "x5u",
        "cty",
        "enc",
        "nonce",
        "x",
    ):
        for value in RETYPED:
            yield name, value
    for typ in (
        "dpop+jwt ",
        "DPOP+JWT",
        "dpop+JWT",
        "application/dpop+jwt",
        "JWT",
        "at+jwt",
        "dpop jwt",
        "dpop",
        "Application/DPoP+JWT",
        "application/application/dpop+jwt",
        "application/dpop+jwt;v=1",
        "x/dpop+jwt",
        "dpop+jw\u017f",
        "application/",
    ):
        yield "typ", typ
    for alg in (
        *ALGORITHMS,
        "none",
        "None",
        "HS256",
        "HS512",
        "ES256K",
        "ES521",
        "Ed448",
        "RSA1_5",
        key.alg.lower(),
    ):
        yield "alg", alg
    for crit in (["exp"], ["b64"], ["alg"]):
        yield "crit", crit
    yield "x", nested(40)


def jwk_changes(key: Signer) -> Iterator[Change]:  # noqa: C901, PLR0912 - a plain list of changes
    for name in ("kty", "crv", "x", "y", "n", "e"):
        for value in RETYPED:
            yield name, value
        original = key.jwk.get(name, "")
        for value in (
            original + "=",
            original + "A",
            "AA" + original,
            original[:-1],
            original[::-1],
            original + "\n",
        ):
            yield name, value
    for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        for value in ("AA", "", None, 1):
            yield name, value
    for value in ("sig", "enc", "", None, [], ["sig"], 1, False):
        yield "use", value
    for value in (
        ["verify"],
        ["sign", "verify"],
        ["sign"],
        [],
        "verify",
        None,
        {},
        [["verify"]],
        ["encrypt"],
    ):
        yield "key_ops", value
    for alg in (*ALGORITHMS, "none", None, [], 1, [key.alg], ""):
        yield "alg", alg
    for name in ("kid", "x5c", "x5t", "ext", "iat", "unknown"):
        for value in ("x", 1, ["x"], None):
            yield name, value
    for kty in ("EC", "RSA", "OKP", "oct", "ec"):
        yield "kty", kty
    for crv in ("P-256", "P-384", "P-521", "secp256k1", "Ed25519", "Ed448", "X25519", "p-256"):
        yield "crv", crv
    for e in ("AQAB", "Aw", "AQ", "Ag", "AAEAAQ", "AQAC", "AQAD", "____", ""):
        yield "e", e
    for bits in (1024, 2047, 2048, 4096, 4097):
        yield "n", b64((2**bits - 1).to_bytes((bits + 7) // 8, "big"))
    for x in (
        b"\0" * 32,
        b"\1" + b"\0" * 31,
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        b"\xff" * 32,
    ):
        yield "x", b64(x)


def changed(members: dict[str, Any], change: Change) -> dict[str, Any]:
    name, value = change
    return {key: inner for key, inner in (members | {name: value}).items() if inner is not ...}


def proofs(key: Signer) -> Iterator[tuple[str, str]]:
    """Every altered proof with what was done to it."""
    header, claims = key.header(), key.claims("GET", URL, token=TOKEN, now=NOW)
    yield "honest", key.jws(header, claims)
    for change in claim_changes(key):
        yield f"claim {change!r:.80}", key.jws(header, changed(claims, change))
    for change in header_changes(key):
        yield f"header {change!r:.80}", key.jws(changed(header, change), claims)
    for change in jwk_changes(key):
        yield f"jwk {change!r:.80}", key.jws(header | {"jwk": changed(key.jwk, change)}, claims)
    yield from texts(key, header, claims)
    yield from segments(key.jws(header, claims))


def texts(key: Signer, header: dict[str, Any], claims: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same JSON, spelled in another way."""

    def with_header(text: str | bytes) -> str:
        return key.jws(text, claims)

    def with_claims(text: str | bytes) -> str:
        return key.jws(header, text)

    parts: list[tuple[str, dict[str, Any], Callable[[str | bytes], str]]] = [
        ("header", header, with_header),
        ("claims", claims, with_claims),
    ]
    for name, members, build in parts:
        text = json.dumps(members)
        for member, value in members.items():
            twice = f'{{"{member}": {json.dumps(value)}, {text[1:]}'
            yield f"{name} {member} twice", build(twice)
            escaped = f'{{"\\u{ord(member[0]):04x}{member[1:]}": {json.dumps(value)}, {text[1:]}'
            yield f"{name} {member} twice, once escaped", build(escaped)
            yield f"{name} {member} in upper case", build(text.replace(f'"{member}"', f'"{member.upper()}"'))
        for spelled in (
            f" {text}\r\n\t ", json.dumps(members, indent=3), json.dumps(members, separators=(",", ":")),
            text.replace("/", "\\/"), text + "x", text + text, f"[{text}]", text[:-1], text[:-1] + ",}",
            text[:-1] + ', "z": NaN}', text[:-1] + ', "z": Infinity}', text[:-1] + ', "z": -Infinity}',
            text[:-1] + ', "z": 1e400}', text[:-1] + f', "z": {"9" * 308}}}',
            text[:-1] + f', "z": {"9" * 309}}}', text[:-1] + ', "z": "\\ud800"}',
            text[:-1] + ', "z": "\\ud83d\\ude00"}', text[:-1] + ', "\\udc00": 1}',
            text[:-1] + ', "z": {"a": 1, "a": 2}}', text[:-1] + ', "z": 01}', text[:-1] + ", 'z': 1}",
            text[:-1] + ', "z": "a\nb"}', text.replace('"', "'"), "", "null", "1", '"text"', "{}", "[]",
            text.encode("utf-16"), text.encode("utf-16-le"), text.encode("utf-32"),
            b"\xef\xbb\xbf" + text.encode(), text.encode() + b"\0", text[:-1].encode() + b', "z": "\xff"}',
            text[:-1].encode() + b', "z": "\xed\xa0\x80"}',
        ):  # fmt: skip
            yield f"{name} spelled {spelled[-40:]!r}", build(spelled)


def segments(proof: str) -> Iterator[tuple[str, str]]:
    """The same proof, with segments that were changed after signing."""
    header, claims, signature = parts = proof.split(".")
    for number, part in enumerate(parts):
        for touched in (
            "", part + "=", part + "==", part + "A", part + "AAAA", part[:-1], part[:-2], part[1:],
            part[::-1], part + "\n", f" {part}", part.replace("A", "B", 1),
            part[:-1] + chr(ord(part[-1]) ^ 1), part + "\xe9", part.replace("-", "+").replace("_", "/"),
            part + "~",
        ):  # fmt: skip
            yield (
                f"segment {number}: {touched[-12:]!r} of {len(touched)}",
                ".".join([*parts[:number], touched, *parts[number + 1 :]]),
            )
    for arranged in (
        proof + ".", "." + proof, f"{header}.{claims}", f"{header}..{signature}",
        f"{claims}.{header}.{signature}", f"{header}.{claims}.{signature}.x.y",
        f"{header},{claims}.{signature}", f"{proof},{proof}", proof + ",", "", "a.b.c", "...",
        f"{encoded({})}.{claims}.{signature}", f"{header}.{encoded({})}.{signature}", proof + "A" * 8192,
        f"Bearer {proof}",
    ):  # fmt: skip
        yield f"arranged {arranged[:20]}…{arranged[-20:]}", arranged


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_library_and_oracle_agree_on_altered_proofs(alg: str) -> None:
    judges = Judges(signer(alg))
    assert (
        await judges.disagree_on(
            judges.key.jws(judges.key.header(), judges.key.claims("GET", URL, token=TOKEN, now=NOW))
        )
        is None
    )
    found = {what: said for what, proof in proofs(judges.key) if (said := await judges.disagree_on(proof))}
    assert found == {}


def test_the_oracle_accepts_some_altered_proofs_and_refuses_others() -> None:
    judges = Judges(signer("ES256"))
    honest = dict(proofs(judges.key))
    asked = [
        Asked("GET", b"/notes", [AUTHORIZATION, (b"dpop", proof.encode("latin-1"))])
        for proof in honest.values()
    ]
    verdicts = [faults(one, judges.world) for one in asked]
    assert verdicts[0] == set()
    accepted = verdicts.count(set())
    assert accepted > 50
    assert len(verdicts) - accepted > 500
    named = set().union(*verdicts)
    assert named >= {
        "format",
        "typ",
        "crit",
        "alg",
        "jwk",
        "claims",
        "htm",
        "htu",
        "iat",
        "ath",
        "signature",
    }


@pytest.mark.parametrize("mine", ["ES256", "RS256", "PS256", "EdDSA"])
async def test_judges_agree_on_another_key_or_algorithm_than_the_tokens(mine: str) -> None:
    judges = Judges(signer(mine))
    for alg in ALGORITHMS:
        other = Signer(alg) if alg.startswith("E") else signer(alg)
        claims = other.claims("GET", URL, token=TOKEN, now=NOW)
        for header in (
            other.header(),
            other.header() | {"jwk": judges.key.jwk},
            other.header() | {"alg": mine},
        ):
            assert await judges.disagree_on(other.jws(header, claims)) is None


AUTHORIZATIONS: list[list[bytes]] = [
    [b"DPoP the-token"], [b"dpop the-token"], [b"DPOP   the-token"], [b"DPoP the-token \t"],
    [b"\tDPoP the-token"], [], [b""], [b"DPoP"], [b"DPoP "], [b"the-token"], [b"Basic the-token"],
    [b"DPoP\tthe-token"], [b"DPoP \tthe-token"], [b"DPoP the-token", b"DPoP the-token"],
    [b"DPoP the-token", b"Bearer the-token"], [b"Bearer the-token"], [b"Bearer unbound"], [b"DPoP unbound"],
    [b"DPoP of-another"], [b"DPoP nobodys"], [b"DPoP the-token, DPoP the-token"], [b"DPoP the token"],
    [b"DPoP the-token="], [b"DPoP =the-token"], [b"DPoP the\xa0token"], [b"DPoP the-token\x00"],
    [b"DPoP " + b"x" * 16384], [b"DPoP " + b"x" * 16385], [b"D\xd0oP the-token"], [b"DPoP token=the-token"],
    [b"DPoP \"the-token\""],
]  # fmt: skip
RAW_PATHS = [
    b"/notes", b"/note%73", b"/n%6ftes", b"/notes?q", b"/notes/", b"//notes", b"/Notes", b"/notes%2F",
    b"/notes/.", b"/./notes", b"/x/../notes", b"/%2e/notes", b"/x/%2E%2e/notes", b"notes", b"", b"*",
    b"https://api.example.test/notes", b"/notes%", b"/notes%zz", b"/notes#x", b"/notes\\", b"/notes\xff",
    b"/notes\x00", b"/notes%00", b"/...", b"/notes;a=b", b"?/notes", b"/notes\n",
]  # fmt: skip


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256"])
async def test_library_and_oracle_agree_on_altered_requests(alg: str) -> None:
    judges = Judges(signer(alg))
    key = judges.key
    proof = key.jws(key.header(), key.claims("GET", URL, token=TOKEN, now=NOW)).encode()
    fields: list[list[tuple[bytes, bytes]]] = [
        [], [(b"DPOP", proof)], [(b"dpop", proof), (b"dpop", proof)], [(b"dpop", proof), (b"DPoP", b"")],
        [(b"dpop", b"")], [(b"dpop", b" " + proof + b"\t ")], [(b"dpop", proof + b",")], [(b"dpop ", proof)],
        [(b"dpop", proof + b" x")], [(b"x-dpop", proof)], [(b"dpop", b"x" * 8192)], [(b"dpop", b"x" * 8193)],
        [(b"dpop", proof + b"\xff")], [(b"dpop", proof), (b"x-http-method-override", b"POST")],
        [(b"dpop", proof), (b"x-forwarded-host", b"evil"), (b"forwarded", b"host=evil")],
    ]  # fmt: skip
    methods = ("GET", "get", "POST", "HEAD", "", "GET ", "OPTIONS", "G\u0395T")
    good = [AUTHORIZATION, (b"dpop", proof)]
    asked = [
        *(Asked("GET", path, good) for path in RAW_PATHS),
        *(Asked(method, b"/notes", good) for method in methods),
        *(Asked("GET", b"/notes", [(b"HOST", b"evil"), AUTHORIZATION, *some]) for some in fields),
    ]
    for values in AUTHORIZATIONS:
        sent = [(b"Authorization", value) for value in values]
        asked.append(Asked("GET", b"/notes", [*sent, (b"DPoP", proof)]))
    found = {index: said for index, one in enumerate(asked) if (said := await judges.disagree(one))}
    assert found == {}
    assert sum(not faults(one, judges.world) for one in asked) > 10


@pytest.mark.parametrize("path", [path for path in RAW_PATHS if path.startswith(b"/")])
async def test_a_client_that_signs_the_path_as_it_is_sent(path: bytes) -> None:
    judges = Judges(signer("ES256"))
    key = judges.key
    claims = key.claims("GET", RESOURCE + path.decode("latin-1"), token=TOKEN, now=NOW)
    assert (
        await judges.disagree(
            Asked("GET", path, [AUTHORIZATION, (b"dpop", key.jws(key.header(), claims).encode())])
        )
        is None
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ORIGINS = [
    "https://api.example.test",
    "HTTPS://API.example.TEST:443",
    "https://x@api.example.test",
    "https:",
    "",
]
PIECES = ["/", "notes", ".", "..", "%2e", "%6e", "%", "\\", "?", "#", "a", ":", "é"]
URIS = st.builds(
    "{}{}{}".format,
    st.sampled_from(ORIGINS),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.sampled_from(["", "/notes", "/../notes", "?x"]),
)


@settings(max_examples=300)
@example(header={"typ": [[]] * 7}, jwk={"kty": [[]] * 7}, claims={})
@given(
    header=st.dictionaries(st.sampled_from(["typ", "alg", "crit", "kid", "x"]), JSON, max_size=1),
    jwk=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "use", "key_ops", "alg", "d"]), JSON, max_size=1
    ),
    claims=st.dictionaries(
        st.sampled_from(["jti", "htm", "iat", "exp", "nbf", "ath", "nonce", "x"]), JSON, max_size=2
    )
    | st.fixed_dictionaries({"htu": URIS})
    | st.fixed_dictionaries({"iat": st.floats(NOW - 95, NOW + 35)}),
)
async def test_library_and_oracle_agree_on_anything_that_a_client_may_sign(
    header: Any, jwk: Any, claims: Any
) -> None:
    judges = Judges(signer("ES256"))
    key = judges.key
    proof = key.jws(
        key.header() | {"jwk": key.jwk | jwk} | header, key.claims("GET", URL, token=TOKEN, now=NOW) | claims
    )
    assert await judges.disagree_on(proof) is None


async def test_a_second_presentation_is_a_replay_for_every_algorithm() -> None:
    for alg in ALGORITHMS:
        key, tokens = signer(alg), Tokens()
        tokens.issue(key.jkt, name=TOKEN)
        server = ResourceServer(
            verifier=tokens, resource=RESOURCE, replay_store=MemoryReplayStore(), clock=Clock()
        )
        claims = key.claims("GET", URL, token=TOKEN, now=NOW)
        scope = {"type": "http", "method": "GET", "path": "/notes", "raw_path": b"/notes"}

        def presented(proof: str, scope: dict[str, Any] = scope) -> ResourceRequest:
            return ResourceRequest.from_scope(scope | {"headers": [AUTHORIZATION, (b"dpop", proof.encode())]})

        await server.authenticate(presented(key.jws(key.header(), claims)))
        for again in (claims, claims | {"iat": NOW + 1}):
            with pytest.raises(DPoPError) as caught:
                await server.authenticate(presented(key.jws(key.header() | {"kid": "other"}, again)))
            assert caught.value.check == "jti"
        await server.authenticate(presented(key.jws(key.header(), claims | {"jti": "another"})))
