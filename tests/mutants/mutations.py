"""Mutants, and the places where one can be made: with mutmut's operators, and some for guards.

A mutant is one change of one expression or statement. Code without behaviour isn't changed: annotations,
imports, docstrings, `__all__`, slots, code for type checkers.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

NO_BEHAVIOUR = (cst.Annotation, cst.Import, cst.ImportFrom, cst.Match)
FOR_TYPES = {"cast", "NewType", "ParamSpec", "TypeVar"}
LISTS_OF_NAMES = {"__all__", "__slots__"}


class Name(NamedTuple):
    """In which function or class which line becomes which; `nth` where that can be done more than once."""

    scope: str
    was: str
    becomes: str
    nth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one file. What it replaces is its name, which outlives the number of its line."""

    path: str
    name: Name  # a list of survivors knows it by that: a file that is moved takes its mutants along
    text: str
    start: int  # in bytes
    length: int
    first: int  # line
    last: int
    in_function: bool

    def rank(self, seed: str) -> bytes:
        """A place in the order of all mutants that a change elsewhere doesn't move."""
        name = (seed, *self.name[:3], *([str(self.name.nth)] if self.name.nth > 1 else []))
        return hashlib.sha256("\0".join(name).encode()).digest()

    def applied_to(self, source: bytes) -> bytes:
        """The mutated file."""
        return source[: self.start] + self.text.encode() + source[self.start + self.length :]

    def differs(self, source: bytes) -> bool:
        """Whether it is a program, and another one than the file."""
        try:
            changed = ast.parse(self.applied_to(source))
        except SyntaxError:
            return False
        return ast.dump(changed) != ast.dump(ast.parse(source))


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """All mutants of a file, in the order of the file."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    lines = wrapper.resolve(PositionProvider)
    found: list[Mutant] = []
    seen: Counter[Name] = Counter()
    for node, scope, in_function in _places(wrapper.module, "", in_function=False):
        for changed_node, replacement in _replacements(node):
            span, place = spans[changed_node], lines[changed_node]
            text = wrapper.module.code_for_node(_without_brackets_of(changed_node, replacement)).strip()
            before = source.rfind(b"\n", 0, span.start) + 1
            after = (source + b"\n").find(b"\n", span.start + span.length)
            changed = source[before : span.start] + text.encode() + source[span.start + span.length : after]
            name = Name(scope, _on_one_line(source[before:after]), _on_one_line(changed))
            seen[name] += 1
            found.append(
                Mutant(
                    path=path,
                    name=name._replace(nth=seen[name]),
                    text=text,
                    start=span.start,
                    length=span.length,
                    first=place.start.line,
                    last=place.end.line,
                    in_function=in_function,
                )
            )
    return found


def sample(
    mutants: Iterable[Mutant], sources: Mapping[str, bytes], *, size: int | None, seed: str
) -> list[Mutant]:
    """As many as `size` says, of each place one at most, always the same for a seed; all of them for None."""
    taken: list[Mutant] = []
    seen: set[tuple[object, ...]] = set()
    for mutant in sorted(mutants, key=lambda mutant: mutant.rank(seed)):
        if len(taken) == size:
            break
        once: tuple[object, ...] = mutant.name if size is None else (mutant.path, mutant.start, mutant.length)
        if once not in seen and mutant.differs(sources[mutant.path]):
            seen.add(once)
            taken.append(mutant)
    return taken


def _places(node: cst.CSTNode, scope: str, *, in_function: bool) -> Iterator[tuple[cst.CSTNode, str, bool]]:
    if isinstance(node, NO_BEHAVIOUR) or _is_for_readers_only(node, at_the_top=not in_function):
        return
    if isinstance(node, cst.Call) and _name_of(node.func) in FOR_TYPES:
        for argument in node.args[1:]:
            yield from _places(argument.value, scope, in_function=in_function)
        return
    yield node, scope, in_function
    inside, body = scope, None
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        inside, body = f"{scope}.{node.name.value}".lstrip("."), node.body
    for child in node.children:
        acts_later = isinstance(node, cst.FunctionDef) and child is body
        yield from _places(child, inside, in_function=in_function or acts_later)


def _is_for_readers_only(node: cst.CSTNode, *, at_the_top: bool) -> bool:
    match node:
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString() | cst.Ellipsis()):
            return True
        case cst.If(test=test):
            return _name_of(test) == "TYPE_CHECKING"
        case cst.FunctionDef(decorators=decorators):
            return any(_name_of(decorator.decorator) == "overload" for decorator in decorators)
        case cst.Assign(targets=[cst.AssignTarget(target=target)], value=value) if at_the_top:
            name = _name_of(target)
            alias = (
                isinstance(value, cst.Subscript | cst.BinaryOperation)
                and name[:1].isupper()
                and not name.isupper()
            )
            return name in LISTS_OF_NAMES or alias
        case cst.AnnAssign(annotation=annotation):
            return _name_of(annotation.annotation) == "TypeAlias"
        case cst.Arg(keyword=cst.Name(value="slots")):
            return True
        case _:
            return False


def _replacements(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            replacements = [one for one in operator(node) if _slots_of(one) == _slots_of(node)]
            # A sentence: another one is enough, its letters in lower case say the same.
            is_sentence = isinstance(node, cst.SimpleString) and " " in node.value
            yield from ((node, replacement) for replacement in replacements[: 1 if is_sentence else None])
    yield from _without_the_guard(node)


def _slots_of(node: cst.CSTNode) -> list[str]:
    """What is said of a dataclass's slots, which are there for memory."""
    arguments = node.args if isinstance(node, cst.Call) else ()
    return [
        _name_of(argument.value)
        for argument in arguments
        if argument.keyword is not None and argument.keyword.value == "slots"
    ]


def _without_the_guard(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """What mutmut leaves alone: a condition, a statement that is left out, an empty answer."""
    match node:
        case cst.If(test=test) | cst.While(test=test) | cst.CompIf(test=test):
            yield test, _negated(test)
        case cst.Raise() | cst.Del() | cst.Expr(value=cst.Call() | cst.Await()):
            yield node, cst.Pass()
        case cst.Return(value=cst.BaseExpression()) if _name_of(node.value) != "None":
            yield node, node.with_changes(value=cst.Name("None"))
        case _:
            return


def _negated(test: cst.BaseExpression) -> cst.BaseExpression:
    bracketed = test.with_changes(lpar=[*test.lpar, cst.LeftParen()], rpar=[*test.rpar, cst.RightParen()])
    return cst.UnaryOperation(operator=cst.Not(), expression=bracketed)


def _without_brackets_of(node: cst.CSTNode, replacement: cst.CSTNode) -> cst.CSTNode:
    # A node's span leaves out the brackets around it, its code has them.
    own: Any = getattr(node, "lpar", None)
    if own and getattr(replacement, "lpar", None) is own:
        return replacement.with_changes(lpar=[], rpar=[])
    return replacement


def _name_of(node: object) -> str:
    match node:
        case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
            return name
        case _:
            return ""


def _on_one_line(code: bytes) -> str:
    return " ".join(code.decode().split())
