"""The structure of the package, enforced: which module may import which, what is public, what is where."""

import ast
import fnmatch
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import dpop_middleware
from dpop_middleware import DPoPMiddleware, MemoryReplayStore
from dpop_middleware._proof.proof import check_signature
from tests.benchmarks.workload import KNOWN_CLIENTS, Workload
from tests.support.mirror import mirror_of

HOUSE = Path(__file__).parents[1]
PACKAGE = HOUSE / "dpop_middleware"
INSTALLED = Path(dpop_middleware.__path__[0])
# At most, for a known client's request: the modules that it passes, its calls within the package,
# and its frames from the middleware to the check of the proof's signature.
MOST_MODULES, MOST_CALLS, MOST_FRAMES = 21, 66, 7

# Imports go down only: a module may import modules of its own row and of the rows before it, never in a ring.
ROWS = (
    ("checks", "errors", "_options", "_runtime", "_log", "health"),
    ("policy", "jose"),
    ("_request",),
    ("_resource_metadata",),
    ("nonces", "profiles", "tokens", "replay"),
    ("_proof",),
    ("_judge",),
    ("events",),
    ("resource_server",),
    ("_adapter",),
    (
        "_swagger_ui",
        "asgi",
        "starlette",
        "fastapi",
        "django",
        "forward_auth",
        "mcp",
        "metadata",
        "nonce_endpoint",
        "telemetry",
        "websocket_tickets",
    ),
    ("authorization_server", "client", "testing"),
    ("introspection",),
    ("cli",),
    ("__init__", "__main__"),
)
# What is pure: no `await`, clock, environment, framework, input or output. Time and randomness are arguments.
PURE = (
    "checks", "errors", "_options", "policy", "jose", "_request", "_resource_metadata", "nonces",
    "_proof.proof", "_proof.freshness", "_judge.hints", "_judge.misplaced", "_judge.requirements",
    "_judge.verdicts",
)  # fmt: skip
# What pure modules may import: nothing that waits, reads a clock, is random or reads and writes.
PURE_IMPORTS = {
    "base64", "binascii", "collections", "copy", "dataclasses", "enum", "functools", "hashlib", "hmac",
    "inspect", "ipaddress", "itertools", "json", "math", "re", "types", "typing", "urllib.parse",
    "cryptography", "jwt", "dpop_middleware",
}  # fmt: skip
# The store's constants are for its tests too.
STORE = "replay."
IMPURE_BUILTINS = {"input", "open", "print"}

PUBLIC = {
    "AccessToken",
    "AccessTokenVerifier",
    "DPoPMiddleware",
    "DPoPPolicy",
    "DPoPProof",
    "ErrorResponse",
    "HMACNonceProvider",
    "JWTAccessTokenVerifier",
    "JWTOrOpaqueVerifier",
    "MemoryReplayStore",
    "MultiIssuerVerifier",
    "Nonce",
    "NonceProvider",
    "RedisReplayStore",
    "ReplayEntry",
    "ReplayStore",
    "ResourceMetadata",
    "ResourceRequest",
    "ResourceServer",
    "VerifiedRequest",
    "WebSocketTickets",
    "errors",
    "profiles",
}
TOP_LEVEL = {"LICENSE", "README.md", "dpop_middleware", "examples", "pyproject.toml", "tests", "tox.ini"}
# Written by `python -m build` into a source distribution.
OF_A_SOURCE_DISTRIBUTION = {"PKG-INFO"}


def name_of(path: Path) -> str:
    """`dpop_middleware/jose/jwk.py` is `jose.jwk`, `dpop_middleware/jose/__init__.py` is `jose`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def unit_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def trees() -> dict[str, ast.Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imports_of(module: str) -> Iterator[str]:
    """The modules that one module imports, by their full names."""
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (
                f"{node.module}.{alias.name}" if in_house(f"{node.module}.{alias.name}") else node.module
                for alias in node.names
            )


def in_house(name: str) -> str | None:
    """The package's own name of a module, None for any other name."""
    own = name.removeprefix("dpop_middleware.")
    return own if own != name and own in trees() else None


def in_house_imports_of(module: str) -> set[str]:
    return {own for name in imports_of(module) if (own := in_house(name)) is not None}


MODULES = sorted(trees())
PURE_MODULES = [module for module in MODULES if module.startswith(PURE)]
ROW_OF = {unit: number for number, row in enumerate(ROWS) for unit in row}


def test_every_module_has_its_place() -> None:
    without = [module for module in MODULES if unit_of(module) not in ROW_OF]
    assert without == [], "give the new module its row in ROWS"


def test_every_unit_in_the_rows_exists() -> None:
    assert set(ROW_OF) == {unit_of(module) for module in MODULES}
    assert [pure for pure in PURE if not any(module.startswith(pure) for module in MODULES)] == []


def test_examples_use_what_is_public() -> None:
    examples = {path: ast.parse(path.read_text("utf-8")) for path in (HOUSE / "examples").rglob("*.py")}
    private = [
        f"{path.relative_to(HOUSE)} imports {node.module}"
        for path, tree in examples.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and re.match(r"dpop_middleware.*\._", node.module or "")
    ]
    assert len(examples) > 20
    assert private == []


def test_imports_go_down_only() -> None:
    upward = [
        f"{module} imports {name}"
        for module in MODULES
        for name in in_house_imports_of(module)
        if ROW_OF[unit_of(name)] > ROW_OF[unit_of(module)]
    ]
    assert upward == []


def test_nothing_imports_the_front_door() -> None:
    others = [module for module in MODULES if module != "__init__"]
    assert [module for module in others if "dpop_middleware" in imports_of(module)] == []


def test_tasks_are_begun_in_one_way() -> None:
    """An application may set an eager task factory, which `begin` doesn't ask."""
    own_ways = {"create_task", "ensure_future", "Task", "TaskGroup"}
    for module in MODULES:
        if module != "_runtime" and unit_of(module) != "testing":
            called = {
                ast.unparse(node.func) for node in ast.walk(trees()[module]) if isinstance(node, ast.Call)
            }
            assert own_ways.isdisjoint(name.rpartition(".")[2] for name in called), module


def test_imports_form_no_ring() -> None:
    graph = {module: in_house_imports_of(module) - {module} for module in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_pure_modules_import_nothing_that_acts() -> None:
    def allowed(name: str) -> bool:
        return any(name == pure or name.startswith(f"{pure}.") for pure in PURE_IMPORTS)

    acting = [(module, name) for module in PURE_MODULES for name in imports_of(module) if not allowed(name)]
    assert acting == []


def test_pure_modules_neither_wait_nor_print() -> None:
    waits = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    impure = [
        f"{module}, line {node.lineno}"
        for module in PURE_MODULES
        for node in ast.walk(trees()[module])
        if isinstance(node, waits) or (isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS)
    ]
    assert impure == []


def test_a_module_has_one_reason_to_exist() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}


def test_each_module_has_tests_of_its_own() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    mirrors = [HOUSE / mirror_of(path.relative_to(HOUSE).as_posix()) for path in modules]
    without = [
        path.relative_to(HOUSE).as_posix()
        for path in mirrors
        if not path.is_file() or "test_" not in path.read_text(encoding="utf-8")
    ]
    assert len(set(mirrors)) == len(modules) > 80
    assert without == [], "what a module promises is tested in the file of its name"


def test_each_package_says_what_is_in_it() -> None:
    packages = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    unnamed = [
        f"{package.parent.name}/{module.name}"
        for package in packages
        for module in package.parent.glob("*.py")
        if module != package
        and not re.search(
            rf"\b{module.stem}\.py\b|`{module.stem}`", ast.get_docstring(trees()[name_of(package)]) or ""
        )
    ]
    assert len(packages) > 10
    assert unnamed == [], "the docstring of the package is the map of its modules"


@pytest.mark.parametrize(
    ("path", "mirror"),
    [
        ("dpop_middleware/jose/jwk.py", "tests/jose/test_jwk.py"),
        ("dpop_middleware/asgi.py", "tests/test_asgi.py"),
        ("dpop_middleware/tokens/__init__.py", "tests/test_tokens.py"),
        ("dpop_middleware/_swagger_ui/__init__.py", "tests/test_swagger_ui.py"),
        ("dpop_middleware/introspection/_verdicts.py", "tests/introspection/test_verdicts.py"),
        ("dpop_middleware/_judge/verdicts.py", "tests/_judge/test_verdicts.py"),
        ("dpop_middleware/_resource_metadata.py", "tests/test_resource_metadata.py"),
    ],
)
def test_the_tests_of_a_module_have_its_name(path: str, mirror: str) -> None:
    assert mirror_of(path) == mirror


def test_the_list_of_surviving_mutants_has_no_entry_whose_code_is_gone() -> None:
    entries = tomllib.loads((HOUSE / "tests/mutants/survivors.toml").read_text(encoding="utf-8"))["survivor"]
    # An entry has the lines of its code on one line.
    sources = [" ".join(path.read_text(encoding="utf-8").split()) for path in PACKAGE.rglob("*.py")]
    gone = [entry["was"] for entry in entries if not any(entry["was"] in source for source in sources)]
    assert gone == []


def test_the_public_names_are_pinned() -> None:
    assert set(dpop_middleware.__all__) == PUBLIC
    assert len(dpop_middleware.__all__) == len(PUBLIC)
    assert all(hasattr(dpop_middleware, name) for name in PUBLIC)


def names_shown_by(module: str) -> Iterator[str]:
    """The names without an underscore that a module defines."""
    for node in trees()[module].body:
        if isinstance(node, (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef)):
            names = [node.name]
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def exported_by(module: str) -> set[str]:
    assignments = (node for node in trees()[module].body if isinstance(node, ast.Assign))
    found = [node.value for node in assignments if ast.unparse(node.targets[0]) == "__all__"]
    return {str(name) for value in found for name in ast.literal_eval(value)}


@pytest.mark.parametrize("module", [one for one in MODULES if not one.startswith(STORE)])
def test_what_a_module_shows_is_in_its_list_of_names(module: str) -> None:
    assert set(names_shown_by(module)) - exported_by(module) == set(), "begin it with an underscore"


def test_the_package_alone_imports_no_extra() -> None:
    code = (
        f"import sys; sys.path.append({str(HOUSE)!r}); import dpop_middleware, dpop_middleware.cli; "
        "print(sorted({'fastapi', 'httpx', 'httpx2', 'opentelemetry', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_field_of_a_dataclass_is_annotated_with_a_deferred_module() -> None:
    """Python 3.15 looks up how such an annotation begins while it makes the class: it imports the module."""
    for module, tree in trees().items():
        deferred = {
            name.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and "Deferred(" in ast.unparse(node.value)
            for name in ast.walk(node.targets[0])
            if isinstance(name, ast.Name)
        }
        annotations = (
            ast.unparse(field.annotation).strip("'")
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and "@dataclass" in ast.unparse(node)
            for field in node.body
            if isinstance(field, ast.AnnAssign)
        )
        assert deferred.isdisjoint(annotation.partition(".")[0] for annotation in annotations), module


def test_the_top_level_holds_nothing_else() -> None:
    ignored = [line.rstrip("/") for line in (HOUSE / ".gitignore").read_text(encoding="utf-8").splitlines()]
    found = {
        path.name
        for path in HOUSE.iterdir()
        if not path.name.startswith(".") and not any(fnmatch.fnmatch(path.name, rule) for rule in ignored)
    }
    assert found - OF_A_SOURCE_DISTRIBUTION == TOP_LEVEL


def examples() -> list[str]:
    entries = (path for path in (HOUSE / "examples").iterdir() if not path.name.startswith(("_", ".")))
    return sorted(path.stem for path in entries if path.is_dir() or path.suffix == ".py")


@pytest.mark.parametrize("example", examples())
def test_each_example_is_run_by_a_test(example: str) -> None:
    if {path.suffix for path in (HOUSE / "examples" / example).iterdir()} <= {".md", ".svg"}:
        return  # a chapter alone: `test_chapters` runs whatever chapters there are
    test = HOUSE / "tests" / "examples" / f"test_{example}.py"
    assert test.is_file(), "an example that no test runs is a promise that nobody keeps"
    assert example in test.read_text(encoding="utf-8").replace(test.name, "")


class Steps(NamedTuple):
    """The module of each call of one request, and the frames at the check of its proof's signature."""

    modules: list[str]
    frames: list[str]


def frames_of_the_package(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(INSTALLED):
            yield frame.f_code.co_qualname
        frame = frame.f_back


async def steps_of_a_steady_request() -> Steps:
    workload = Workload()
    reached: list[object] = []

    async def application(scope: object, receive: object, send: object) -> None:
        reached.append(scope)

    async def unused(*_: object) -> Any:
        raise AssertionError("nothing is read or sent here")

    protected = DPoPMiddleware(application, workload.server(MemoryReplayStore()))
    steps = Steps([], [])

    def note(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(INSTALLED):
            steps.modules.append(str(file.relative_to(INSTALLED)))
            if frame.f_code is check_signature.__code__:
                steps.frames.extend(frames_of_the_package(frame))

    # The first one meets empty caches.
    *before, steady = workload.known(2 * KNOWN_CLIENTS)
    for scope in before:
        await protected(scope, unused, unused)
    sys.setprofile(note)
    try:
        await protected(steady, unused, unused)
    finally:
        sys.setprofile(None)
    assert len(reached) == len(before) + 1
    return steps


async def test_a_steady_request_passes_few_modules_and_functions() -> None:
    modules, _ = await steps_of_a_steady_request()
    assert len(set(modules)) <= MOST_MODULES, sorted(set(modules))
    assert len(modules) <= MOST_CALLS


async def test_few_frames_lie_between_the_middleware_and_the_proofs_signature() -> None:
    _, frames = await steps_of_a_steady_request()
    assert frames[-1] == "DPoPMiddleware.__call__"
    assert len(frames) <= MOST_FRAMES, frames
