"""Where the tests of a module stand: `tests/` mirrors the package."""

from pathlib import Path, PurePosixPath

__all__ = ["mirror_of"]

HOUSE = Path(__file__).parents[2]


def mirror_of(path: str) -> str:
    """`dpop_middleware/jose/jwk.py` is tested by `tests/jose/test_jwk.py`.

    A private module's tests are named without its underscore, `_log.py` by `tests/test_log.py`; but where a
    module beside it has that name, with it: `_metadata.py` by `tests/test__metadata.py`.
    """
    inside = PurePosixPath(path).relative_to("dpop_middleware")
    folder, name = inside.parent, inside.stem
    if inside.name == "__init__.py":
        folder, name = folder.parent, folder.name
    bare = name.removeprefix("_")
    beside = HOUSE / "dpop_middleware" / folder / bare
    taken = bare != name and (beside.is_dir() or beside.with_suffix(".py").is_file())
    return (PurePosixPath("tests") / folder / f"test_{name if taken else bare}.py").as_posix()
