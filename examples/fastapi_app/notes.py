"""Notes: a router whose routes name their scopes."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from examples.fastapi_app.security import Reader, Writer

__all__ = ["router"]

router = APIRouter(prefix="/notes", tags=["notes"])
_notes: dict[str, list[str]] = {}


class Note(BaseModel):
    """What a client sends."""

    text: str = Field(max_length=1000)


@router.get("")
async def read_notes(token: Reader) -> list[str]:
    """Return the caller's notes."""
    return _notes.get(token.identity, [])


@router.post("", status_code=201)
async def write_note(note: Note, token: Writer) -> list[str]:
    """Add a note, and return them all."""
    _notes.setdefault(token.identity, []).append(note.text)
    return _notes[token.identity]
