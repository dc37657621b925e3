"""Which tests try a mutant, in which order: its module's own tests first, then those of its neighbours.

Of each the quick before the slow.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from tests.mutants.mutations import Mutant
from tests.mutants.recording import Recording
from tests.support.mirror import mirror_of

# Seconds and numbers of tests of the two parts of a trial: most mutants end in the first.
FIRST = (6.0, 150)
SECOND = (30.0, 400)


def stages(mutant: Mutant, recording: Recording) -> tuple[Sequence[str], Sequence[str]]:
    """The tests of the first part and of the second."""
    mirrored = mirror_of(mutant.path)
    tests = candidates(mutant, recording)
    seconds = recording.seconds
    # Those that run the module's lines, and those that look at what its import left.
    own = sorted((seconds[test], test not in tests, test) for test in seconds if file_of(test) == mirrored)
    folder = PurePosixPath(mirrored).parent
    near, far = set[str](), set[str]()
    for test in tests:
        if file_of(test) != mirrored:
            (near if PurePosixPath(file_of(test)).parent == folder else far).add(test)
    ordered = [
        *(test for _, only_looks, test in own if not only_looks),
        *_taking_turns(near, seconds),
        *_taking_turns(far, seconds),
        *(test for _, only_looks, test in own if only_looks),
    ]
    first = _within(ordered, FIRST, seconds)
    return first, _within(ordered[len(first) :], SECOND, seconds)


def candidates(mutant: Mutant, recording: Recording) -> set[str]:
    """The tests that run its lines; where it acts at import, all that run the module, and all of its own."""
    lines = recording.lines.get(mutant.path, {})
    chosen: set[str] = set()
    if mutant.in_function:
        chosen.update(*(lines.get(line, frozenset()) for line in range(mutant.first, mutant.last + 1)))
    if not chosen:
        # A test of a value that is made at import runs no line of the module.
        mirrored = mirror_of(mutant.path)
        chosen.update(*lines.values(), (test for test in recording.seconds if file_of(test) == mirrored))
    # A module that has only values, and no tests of its own: the tests of its users would notice a change.
    return chosen or set(recording.seconds)


def file_of(test: str) -> str:
    """The file that contains a test."""
    return test.partition("::")[0]


def _taking_turns(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    # The quickest test of each file, then the second of each: many views early.
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for test in sorted(tests, key=lambda test: (seconds[test], test)):
        by_file[file_of(test)].append(test)
    turns = [
        (turn, number, test)
        for number, of_file in enumerate(by_file.values())
        for turn, test in enumerate(of_file)
    ]
    return [test for _, _, test in sorted(turns)]


def _within(tests: Sequence[str], limits: tuple[float, int], seconds: Mapping[str, float]) -> Sequence[str]:
    most, count = limits
    spent = 0.0
    for number, test in enumerate(tests[:count]):
        spent += seconds[test]
        if spent > most and number:
            return tests[:number]
    return tests[:count]
