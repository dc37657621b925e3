"""Which profile fits a token that was refused for its shape, as a hint: told at one glance, nothing parsed.

Nothing here is verified: whoever sends nonsense gets a wrong hint into the log, and makes nobody work for it.
"""

import re
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError
from dpop_middleware.jose.header import media_type
from dpop_middleware.profiles import KNOWN, Profile

__all__ = ["fitting_profile"]

_TYP: Final = re.compile(rb'"typ"\s*:\s*"([^"\\]{1,60})"')


def fitting_profile(error: DPoPError, header: bytes, payload: bytes) -> str | None:
    """Return a sentence that names the profile whose tokens look like this one; None where there is none.

    - `error`: what the token was refused for; only its typ and a missing claim have to do with profiles.
    - `header`, `payload`: the beginnings of both, decoded, the header in lower case.
    """
    if error.check is not Check.TOKEN_TYP and not (
        error.check is Check.TOKEN_CLAIMS and error.actual is None and error.expected is not None
    ):
        return None
    named = _TYP.search(header)
    typ = None if named is None else media_type(named[1].decode("ascii", "replace"))
    # The profile that is set doesn't fit, or the token would not have been refused so.
    found = next((profile for profile in KNOWN if _fits(profile, typ, payload)), None)
    if found is None:
        return None
    return f"a token of this shape is accepted with profile=profiles.{found.name}"


def _fits(profile: Profile, typ: str | None, payload: bytes) -> bool:
    if typ not in map(media_type, profile.token_types):
        return False
    return all(
        any(
            b'"%s"' % claim.encode() in payload
            for claim in (profile.client_id_claims if name == "client_id" else (name,))
        )
        for name in profile.required_claims
    )
