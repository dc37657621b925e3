"""Keys round trip through every form, hide their private part, and sign proofs that others accept."""

import copy
import hashlib
import importlib
import json
import logging
import pickle
import re
import stat
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import httpx
import httpx2
import joserfc.jwk
import joserfc.jws
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448

from dpop_middleware.client import DPoPKey
from dpop_middleware.client.key import is_access_token
from dpop_middleware.jose import base64url
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS
from tests.support.clients import decoded, key_for, rsa_key

RSA = rsa_key()


def pem(key: Any, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


@pytest.mark.parametrize("algorithm", SUPPORTED_ALGORITHMS)
class TestEveryAlgorithm:
    def test_a_key_round_trips_through_jwk(self, algorithm: str) -> None:
        key = key_for(algorithm)
        again = DPoPKey.from_jwk(key.private_jwk())
        assert (again.algorithm, again.jkt, again.private_jwk()) == (
            algorithm,
            key.jkt,
            key.private_jwk(),
        )

    @pytest.mark.parametrize("password", [None, b"correct horse"])
    def test_a_key_round_trips_through_pem(self, algorithm: str, password: bytes | None) -> None:
        key = key_for(algorithm)
        again = DPoPKey.from_pem(key.to_pem(password=password), algorithm=algorithm, password=password)
        assert (again.algorithm, again.private_jwk()) == (algorithm, key.private_jwk())

    @pytest.mark.parametrize("name", ["key.pem", "key.jwk"])
    def test_a_key_round_trips_through_a_file(self, algorithm: str, name: str, tmp_path: Path) -> None:
        key = key_for(algorithm)
        key.save(tmp_path / name)
        assert DPoPKey.load(tmp_path / name, algorithm=algorithm).private_jwk() == key.private_jwk()

    # joserfc warns of every EdDSA, a name that RFC 9864 deprecates.
    @pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
    def test_joserfc_accepts_its_proof_and_thumbprint(self, algorithm: str) -> None:
        key = key_for(algorithm)
        proof = key.proof("GET", "https://api.example.com/notes", access_token="token")
        header, claims = decoded(proof)
        theirs = joserfc.jwk.import_key(header["jwk"])
        registry = joserfc.jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        registry.max_header_length = 1024  # its default, 512, is too short for any RSA key
        verified = joserfc.jws.deserialize_compact(proof, theirs, registry=registry)
        assert json.loads(verified.payload) == claims
        assert theirs.thumbprint() == key.jkt

    def test_authlib_accepts_its_proof_and_thumbprint(self, algorithm: str) -> None:
        if algorithm == "Ed25519":
            pytest.skip("Authlib's JOSE knows the algorithm by its older name, EdDSA, only")
        # Its import warns, whatever the filters, that joserfc is its successor.
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("ignore")
            jose: Any = importlib.import_module("authlib.jose")
        key = key_for(algorithm)
        proof = key.proof("GET", "https://api.example.com/notes", access_token="token")
        header, claims = decoded(proof)
        theirs = jose.JsonWebKey.import_key(header["jwk"])
        verified = jose.JsonWebToken([algorithm]).decode(proof, theirs)
        assert dict(verified) == claims
        assert theirs.thumbprint() == key.jkt

    def test_the_header_of_a_proof_holds_the_public_key_only(self, algorithm: str) -> None:
        key = key_for(algorithm)
        header, _ = decoded(key.proof("GET", "https://api.example.com/"))
        assert header == {"typ": "dpop+jwt", "alg": algorithm, "jwk": key.public_jwk}
        assert set(key.public_jwk) <= {"kty", "crv", "x", "y", "n", "e"}


class TestProof:
    def test_a_proof_has_the_claims_of_section_4_2(self) -> None:
        before = int(time.time())
        _, claims = decoded(DPoPKey.generate().proof("POST", "https://auth.example.com/token"))
        assert set(claims) == {"jti", "htm", "htu", "iat"}
        assert (claims["htm"], claims["htu"]) == ("POST", "https://auth.example.com/token")
        assert isinstance(claims["iat"], int)
        assert before <= claims["iat"] <= int(time.time())
        assert len(base64url.decode(claims["jti"])) * 8 >= 128

    def test_each_proof_is_new(self) -> None:
        key = DPoPKey.generate()
        jtis = {decoded(key.proof("GET", "https://api.example.com/", now=1.0))[1]["jti"] for _ in range(100)}
        assert len(jtis) == 100

    def test_a_proof_has_the_claims_that_the_caller_names(self) -> None:
        _, claims = decoded(
            DPoPKey.generate().proof(
                "PURGE", "https://h/", access_token="abc", nonce="n-1", now=1562262616.9, jti="fixed"
            )
        )
        assert claims == {
            "jti": "fixed",
            "htm": "PURGE",
            "htu": "https://h/",
            "iat": 1562262616,
            "ath": base64url.encode(hashlib.sha256(b"abc").digest()),
            "nonce": "n-1",
        }

    @pytest.mark.parametrize(
        ("url", "htu"),
        [
            ("https://api.example.com/a?b=c#d", "https://api.example.com/a"),
            ("https://api.example.com/a#d?x", "https://api.example.com/a"),
            ("https://api.example.com", "https://api.example.com/"),
            ("https://api.example.com?x", "https://api.example.com/"),
            ("https://api.example.com/a%2Fb/%e4;x=1", "https://api.example.com/a%2Fb/%e4;x=1"),
            ("https://api.example.com:8443/a//b", "https://api.example.com:8443/a//b"),
            ("HTTPS://API.example.com/", "https://API.example.com/"),
            ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/"),
            ("https://user:pass@api.example.com/a@b", "https://api.example.com/a@b"),
            ("wss://api.example.com/socket?x", "https://api.example.com/socket"),
            ("ws://127.0.0.1:8000/socket", "http://127.0.0.1:8000/socket"),
            (httpx2.URL("https://u:p@bücher.example/straße?q"), "https://xn--bcher-kva.example/stra%C3%9Fe"),
            (httpx.URL("https://u:p@bücher.example/straße?q"), "https://xn--bcher-kva.example/stra%C3%9Fe"),
        ],
    )
    def test_a_proof_names_the_target_without_query_and_fragment(self, url: object, htu: str) -> None:
        assert decoded(DPoPKey.generate().proof("GET", url))[1]["htu"] == htu

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/notes",
            "api.example.com/notes",
            "ftp://api.example.com/",
            "https://",
            "https:///notes",
            "https://api.example.com/straße",
            "https://api.example.com/a b",
            "https://api.example.com/a\r\nDPoP: x",
            "https://api.example.com/\n",
        ],
    )
    def test_a_proof_refuses_a_url_that_can_not_be_sent(self, url: str) -> None:
        with pytest.raises(ValueError, match="absolute"):
            DPoPKey.generate().proof("GET", url)

    # A line break at the end would be hashed, too, and so make a proof of another token.
    @pytest.mark.parametrize("token", ["", "secret\n", "DPoP secret", "secret€", b"secret"])
    def test_a_proof_refuses_a_token_that_can_not_be_sent_without_quoting_it(self, token: Any) -> None:
        assert not is_access_token(token)
        with pytest.raises(ValueError, match="the access token is not visible ASCII") as refused:
            DPoPKey.generate().proof("GET", "https://h/", access_token=token)
        assert "secret" not in str(refused.value)

    def test_a_token_that_a_field_can_hold_is_bound_by_its_hash(self) -> None:
        assert is_access_token("ab.c~1=")
        proof = DPoPKey.generate().proof("GET", "https://h/", access_token="ab.c~1=")
        digest = hashlib.sha256(b"ab.c~1=").digest()
        assert decoded(proof)[1]["ath"] == base64url.encode(digest)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"method": None}, "method takes a text, not None"),
            ({"method": b"GET"}, "method takes a text, not b'GET'"),
            ({"nonce": b"n"}, "nonce takes a text, not b'n'"),
            ({"jti": 5}, "jti takes a text, not 5"),
        ],
    )
    def test_a_proof_refuses_an_argument_of_another_type(self, given: dict[str, Any], message: str) -> None:
        arguments: dict[str, Any] = {"method": "GET", "url": "https://h/", **given}
        with pytest.raises(ValueError, match=f"^{message}"):
            DPoPKey.generate().proof(**arguments)


class TestGenerate:
    @pytest.mark.parametrize("algorithm", ["", "none", "HS256", "es256", "ES256K"])
    def test_generate_refuses_other_algorithms(self, algorithm: str) -> None:
        with pytest.raises(ValueError, match="choose from ES256, "):
            DPoPKey.generate(algorithm)

    @pytest.mark.parametrize("bits", [1024, 2047, 4097, 2048.0, "2048"])
    def test_generate_refuses_other_rsa_sizes(self, bits: Any) -> None:
        with pytest.raises(ValueError, match=f"2048 to 4096 bits, not {bits!r}$"):
            DPoPKey.generate("PS256", rsa_bits=bits)

    def test_generate_makes_rsa_keys_of_2048_bits(self) -> None:
        assert len(base64url.decode(DPoPKey.generate("RS256").public_jwk["n"])) * 8 == 2048

    def test_a_key_of_another_algorithm_is_refused(self) -> None:
        with pytest.raises(ValueError, match="another key type"):
            DPoPKey(RSA, algorithm="ES256")
        with pytest.raises(ValueError, match="another curve"):
            DPoPKey(ec.generate_private_key(ec.SECP384R1()), algorithm="ES256")


class TestLoading:
    @pytest.mark.parametrize(
        ("made", "usual"),
        [
            ("ES256", "ES256"),
            ("ES384", "ES384"),
            ("ES512", "ES512"),
            ("Ed25519", "EdDSA"),
            ("PS512", "RS256"),
        ],
    )
    def test_without_a_name_the_usual_algorithm_is_used(self, made: str, usual: str) -> None:
        key = key_for(made)
        jwk = {name: value for name, value in key.private_jwk().items() if name != "alg"}
        assert DPoPKey.from_jwk(jwk).algorithm == usual
        assert DPoPKey.from_pem(key.to_pem()).algorithm == usual
        assert DPoPKey.from_jwk(jwk, algorithm=made).algorithm == made

    def test_the_older_pem_forms_are_read(self) -> None:
        key = DPoPKey.from_pem(pem(RSA, serialization.PrivateFormat.TraditionalOpenSSL), algorithm="PS256")
        assert key.jkt == DPoPKey(RSA, algorithm="RS256").jkt

    @pytest.mark.parametrize("made", ["ES256", "RS256", "EdDSA"])
    def test_members_of_a_jwk_may_be_null(self, made: str) -> None:
        # .NET writes them so.
        key = key_for(made)
        unset: dict[str, Any] = {"use": None, "key_ops": [], "oth": [], "x5c": [], "k": None, "kid": None}
        assert DPoPKey.from_jwk(key.private_jwk() | unset).jkt == key.jkt
        with pytest.raises(ValueError, match="no private part"):
            DPoPKey.from_jwk(key.private_jwk() | {"d": None})

    def test_an_rsa_jwk_without_its_primes_is_read(self) -> None:
        jwk = key_for("RS256").private_jwk()
        short = {name: jwk[name] for name in ("kty", "n", "e", "d")}
        assert DPoPKey.from_jwk(short).jkt == key_for("RS256").jkt

    @pytest.mark.parametrize(
        "change",
        [
            {"kty": "oct", "k": "AAAA"},
            {"kty": None},
            {"kty": ["EC"]},
            {"crv": "P-192"},
            {"crv": ["P-256"]},
            {"alg": "HS256"},
            {"alg": ["ES256"]},
            {"alg": "ES384"},
            {"d": None},
            {"d": 7},
            {"d": ""},
            {"d": "AAAA"},
            {"x": "AAAA"},
            {"x": 7},
            {"y": None},
        ],
    )
    def test_a_wrong_jwk_is_refused(self, change: dict[str, Any]) -> None:
        jwk = DPoPKey.generate().private_jwk() | change
        with pytest.raises(ValueError, match=r"JWK|key|algorithm"):
            DPoPKey.from_jwk(jwk)

    @pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA", *POST_QUANTUM_ALGORITHMS])
    @pytest.mark.parametrize("value", [7, True, ["x"], {"x": 1}])
    def test_a_private_part_that_is_no_string_is_refused(self, algorithm: str, value: object) -> None:
        jwk = DPoPKey.generate(algorithm).private_jwk()
        name = "priv" if "priv" in jwk else "d"
        with pytest.raises(ValueError, match=f"its member {name} is missing or not a string"):
            DPoPKey.from_jwk(jwk | {name: value})

    def test_a_public_jwk_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no private part"):
            DPoPKey.from_jwk(DPoPKey.generate().public_jwk)

    @pytest.mark.parametrize("algorithm", ["ES256", "ES512", "EdDSA"])
    def test_halves_of_two_keys_are_refused(self, algorithm: str) -> None:
        jwk = DPoPKey.generate(algorithm).private_jwk() | DPoPKey.generate(algorithm).public_jwk
        with pytest.raises(ValueError, match=r"can't be read|belong together"):
            DPoPKey.from_jwk(jwk)

    def test_a_huge_rsa_jwk_is_refused_before_it_costs_anything(self) -> None:
        huge = base64url.encode(b"\xff" * 2048)
        started = time.thread_time()
        with pytest.raises(ValueError, match="2048 to 4096 bits"):
            DPoPKey.from_jwk({"kty": "RSA", "n": huge, "e": "AQAB", "d": huge})
        assert time.thread_time() - started < 0.5

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            pem(dsa.generate_private_key(1024)),
            pem(ed448.Ed448PrivateKey.generate()),
            RSA.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        ],
        ids=["empty", "garbage", "DSA", "Ed448", "public"],
    )
    def test_a_wrong_pem_is_refused(self, data: bytes) -> None:
        with pytest.raises(
            ValueError, match=r"^the PEM private key can't be read: wrong format, type or password$"
        ):
            DPoPKey.from_pem(data)

    def test_other_curves_are_refused(self) -> None:
        with pytest.raises(ValueError, match="curve that DPoP does not use"):
            DPoPKey.from_pem(pem(ec.generate_private_key(ec.BrainpoolP256R1())))
        with pytest.raises(ValueError, match="P-256, P-384 or P-521"):
            DPoPKey.from_pem(pem(ec.generate_private_key(ec.SECP256K1())))

    def test_a_wrong_password_is_refused(self) -> None:
        data = DPoPKey.generate().to_pem(password=b"right")
        for password in (b"wrong", None):
            with pytest.raises(ValueError, match="password"):
                DPoPKey.from_pem(data, password=password)

    def test_a_key_or_a_password_as_text_is_refused(self) -> None:
        wrong: Any = DPoPKey.generate().to_pem().decode()
        with pytest.raises(ValueError, match="^from_pem takes bytes, as a file has them, not a str$"):
            DPoPKey.from_pem(wrong)
        with pytest.raises(ValueError, match="^password takes bytes"):
            DPoPKey.from_pem(wrong.encode(), password=wrong)
        with pytest.raises(ValueError, match="^password takes bytes"):
            DPoPKey.generate().to_pem(password=wrong)
        with pytest.raises(ValueError, match="^from_jwk takes a mapping, such as json.loads.*, not a str$"):
            DPoPKey.from_jwk(wrong)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("name", ["key.pem", "key.jwk"])
    def test_a_file_may_have_a_byte_order_mark(self, name: str, encoding: str, tmp_path: Path) -> None:
        key, file = DPoPKey.generate(), tmp_path / name
        key.save(file)
        file.write_text(file.read_text(), encoding=encoding)
        assert DPoPKey.load(file).jkt == key.jkt

    def test_a_pem_file_may_begin_with_attributes(self, tmp_path: Path) -> None:
        key, file = DPoPKey.generate(), tmp_path / "key.pem"
        file.write_bytes(b"Bag Attributes\n    friendlyName: client\n" + key.to_pem())
        assert DPoPKey.load(file).jkt == key.jkt

    @pytest.mark.parametrize("way", ["jwk", "pem", "bytes"])
    def test_a_key_in_place_of_the_name_of_its_file_is_not_shown(self, way: str) -> None:
        key = DPoPKey.generate()
        pem = key.to_pem()
        given: Any = {"jwk": json.dumps(key.private_jwk()), "pem": pem.decode(), "bytes": pem}[way]
        with pytest.raises(ValueError, match="^load takes the name of a file, not the key itself") as caught:
            DPoPKey.load(given)
        secret = key.private_jwk()["d"] if way == "jwk" else pem.decode().splitlines()[1]
        shown = "".join(traceback.format_exception(caught.value))
        assert secret not in shown.replace("\\n", "\n")

    @pytest.mark.parametrize("content", ["[]", "", "kty=EC"])
    def test_a_file_that_is_no_key_is_refused(self, content: str, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text(content)
        with pytest.raises(ValueError, match="neither a PEM private key nor a JWK in JSON"):
            DPoPKey.load(file)
        with pytest.raises(FileNotFoundError):
            DPoPKey.load(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "content", ["", '{"kty":"EC"}', json.dumps(dict(DPoPKey.generate().public_jwk)), "-----BEGIN"]
    )
    def test_an_error_about_what_is_in_a_file_names_the_file(self, content: str, tmp_path: Path) -> None:
        file = tmp_path / "client.jwk"
        file.write_text(content)
        with pytest.raises(ValueError, match="^" + re.escape(f"{file}: ")):
            DPoPKey.load(file)


class TestSaving:
    def test_the_case_of_the_name_does_not_matter(self, tmp_path: Path) -> None:
        key, file = DPoPKey.generate(), tmp_path / "KEY.PEM"
        key.save(file, password=b"secret")
        assert b"ENCRYPTED" in file.read_bytes()
        assert DPoPKey.load(file, password=b"secret").jkt == key.jkt

    @pytest.mark.parametrize("name", ["key.pem", "key.jwk", "key"])
    def test_only_the_owner_may_read_the_file(self, name: str, tmp_path: Path) -> None:
        DPoPKey.generate().save(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600

    def test_save_does_not_overwrite_by_default(self, tmp_path: Path) -> None:
        first, second = DPoPKey.generate(), DPoPKey.generate()
        file = tmp_path / "key.jwk"
        first.save(file)
        file.chmod(0o644)
        with pytest.raises(FileExistsError):
            second.save(file)
        assert DPoPKey.load(file).jkt == first.jkt
        second.save(file, overwrite=True)
        assert DPoPKey.load(file).jkt == second.jkt
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [file]

    def test_a_key_is_on_the_disk_before_it_replaces_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = DPoPKey.generate(), DPoPKey.generate()
        file = tmp_path / "key.jwk"
        first.save(file)
        synced: list[str] = []

        def fsync(_descriptor: int) -> None:
            (new,) = set(tmp_path.iterdir()) - {file}
            synced.extend(DPoPKey.load(path).jkt for path in (new, file))

        monkeypatch.setattr("os.fsync", fsync)
        second.save(file, overwrite=True)
        assert synced == [second.jkt, first.jkt]
        assert DPoPKey.load(file).jkt == second.jkt

    def test_save_leaves_no_key_behind_when_it_fails(self, tmp_path: Path) -> None:
        directory = tmp_path / "key.jwk"
        directory.mkdir()
        with pytest.raises(OSError, match="key.jwk"):
            DPoPKey.generate().save(directory, overwrite=True)
        assert list(tmp_path.iterdir()) == [directory]

    def test_save_does_not_follow_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "key.jwk").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(FileExistsError):
            DPoPKey.generate().save(tmp_path / "key.jwk")
        assert not (tmp_path / "elsewhere").exists()

    def test_save_encrypts_pem_with_a_password(self, tmp_path: Path) -> None:
        key = DPoPKey.generate()
        key.save(tmp_path / "key.pem", password=b"secret")
        assert b"ENCRYPTED" in (tmp_path / "key.pem").read_bytes()
        assert DPoPKey.load(tmp_path / "key.pem", password=b"secret").jkt == key.jkt

    def test_save_refuses_a_password_for_a_jwk(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"ends in \.pem"):
            DPoPKey.generate().save(tmp_path / "key.jwk", password=b"secret")
        assert list(tmp_path.iterdir()) == []


class TestSecrecy:
    @pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
    def test_a_key_shows_algorithm_and_thumbprint_only(
        self, algorithm: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = key_for(algorithm)
        assert repr(key) == str(key) == f"<DPoPKey {algorithm} jkt={key.jkt}>"
        with caplog.at_level(logging.INFO):
            logging.getLogger("test").info("%s %r %s", key, key, [key])
        assert key.private_jwk()["d"] not in caplog.text

    def test_a_key_can_not_be_pickled_or_copied(self) -> None:
        key = DPoPKey.generate()
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="can't be pickled"):
                attempt(key)
        assert not hasattr(key, "__dict__")

    def test_the_public_jwk_is_a_copy(self) -> None:
        key = DPoPKey.generate()
        key.public_jwk["d"] = "mine"
        assert "d" not in key.public_jwk
