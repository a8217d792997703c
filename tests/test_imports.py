"""The data flows one way: which room may import which, and which room may use which library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ulcmod_dist

PACKAGE = Path(ulcmod_dist.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "demo" not in path.parts)

# From the ground up; a room imports rooms of lower floors only.
FLOORS = (
    {"errors"},
    {"results", "runtime"},
    {"config"},
    {"corpus", "passes"},
    {"forward", "iterd", "store"},
    {"intervene", "extract", "evaluate", "submit", "report"},
    {"api"},
    {"pipeline"},
    {"cli"},
)
# The half that searches and the half that computes meet in `pipeline` alone.
SEARCHING = {"evaluate", "iterd", "passes"}
COMPUTING = {"forward", "store", "extract", "intervene", "submit", "corpus"}
LIBRARIES = {
    "torch": {"forward", "intervene", "passes"},
    "transformers": {"forward", "intervene"},
    "ray": {"extract", "intervene", "passes", "runtime", "submit"},
    "zarr": {"store"},
    "typer": {"cli"},
    "pydantic": {"config", "corpus", "pipeline", "store"},
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    rooms = {room_of(source) for source in SOURCES}
    parts = [name.split(".") for name in imported(path)]
    return {p[1] for p in parts if p[0] == "ulcmod_dist" and len(p) > 1 and p[1] in rooms}


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


# The package's face hands names of every floor on; it is no room.
ROOM_FILES = [path for path in SOURCES if path.parent != PACKAGE or path.name != "__init__.py"]


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports__go_down_only(path: Path) -> None:
    room = room_of(path)
    upward = {other for other in rooms_imported(path) - {room} if floor_of(other) >= floor_of(room)}
    assert not upward


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports__halves_meet_in_stages_alone(path: Path) -> None:
    room = room_of(path)
    across = {True: COMPUTING, False: SEARCHING}[room in SEARCHING]
    if room in SEARCHING | COMPUTING:
        assert not rooms_imported(path) & across


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports__libraries_keep_to_their_rooms(path: Path) -> None:
    used = {name.split(".")[0] for name in imported(path)}
    strangers = {name for name in used & set(LIBRARIES) if room_of(path) not in LIBRARIES[name]}
    assert not strangers
