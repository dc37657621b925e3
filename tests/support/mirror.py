"""Where the tests of a module stand: `tests/` mirrors the package."""

from pathlib import PurePosixPath

__all__ = ["mirror_of"]


def mirror_of(path: str) -> str:
    """`dpop_middleware/jose/jwk.py` is tested by `tests/jose/test_jwk.py`.

    A private module's tests are named without its underscore: `_log.py` by `tests/test_log.py`.
    """
    inside = PurePosixPath(path).relative_to("dpop_middleware")
    folder, name = inside.parent, inside.stem
    if inside.name == "__init__.py":
        folder, name = folder.parent, folder.name
    return (PurePosixPath("tests") / folder / f"test_{name.removeprefix('_')}.py").as_posix()
