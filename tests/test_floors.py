"""Imports run down the house only (docs/architecture.md)."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parent.parent / "src" / "cloister"

_PURE_BASE = frozenset({"errors", "wire"})
MAY_IMPORT = {
    "errors": frozenset(),
    "codes": frozenset(),
    "wire": frozenset({"errors"}),
    "crypto": _PURE_BASE,
    "attest": _PURE_BASE | {"crypto"},
    "identity": _PURE_BASE | {"crypto", "attest"},
    "sealed": _PURE_BASE | {"crypto", "attest"},
    "channel": _PURE_BASE | {"crypto"},
    "convert": _PURE_BASE | {"sealed"},
    "stores": _PURE_BASE | {"crypto", "sealed"},
    "lending": _PURE_BASE | {"crypto", "attest"},
    "journal": _PURE_BASE,
    "listener": frozenset(),
    "heap": frozenset(),
    "stopping": frozenset(),
    "live_context": frozenset(),
    "private_file": frozenset({"errors"}),
    "serving": _PURE_BASE | {"journal", "listener", "live_context"},
    "tpm": _PURE_BASE | {"attest"},
    "pages": _PURE_BASE | {"attest", "lending"},
    "custodian": _PURE_BASE
    | {"crypto", "attest", "identity", "tpm", "sealed", "lending", "journal", "private_file", "serving", "listener"}
    | {"codes", "live_context", "pages"},
    "enclave": _PURE_BASE
    | {"crypto", "attest", "identity", "tpm", "sealed", "stores", "lending", "channel", "journal", "listener"}
    | {"live_context"},
    "client": _PURE_BASE
    | {"crypto", "attest", "lending", "channel", "journal", "listener", "private_file"}
    | {"pages"},
    "relay": frozenset({"errors", "channel", "journal", "lending", "private_file", "serving", "wire"}),
    "asking": _PURE_BASE | {"attest", "lending", "client", "pages", "serving"},
    "borrowing": _PURE_BASE | {"crypto", "lending", "pages", "serving"},
    "verifier": _PURE_BASE | {"crypto", "attest", "identity", "journal", "private_file", "serving", "pages"},
    "testing": _PURE_BASE
    | {"crypto", "attest", "sealed", "lending", "channel", "custodian", "enclave", "client"}
    | {"journal"},
    "cli": _PURE_BASE
    | {"crypto", "attest", "sealed", "stores", "lending", "channel", "custodian", "enclave", "client", "testing"}
    | {"convert", "identity", "relay", "verifier", "serving", "tpm", "journal", "private_file", "codes"}
    | {"asking", "borrowing"},
    "__init__": frozenset({"client", "errors"}),
    "__main__": frozenset({"cli"}),
    "telemetry": frozenset({"errors", "private_file"}),
}
SERVERS = ("custodian", "enclave", "client", "relay", "verifier", "cli")
# Each tells about itself, sets its heap aside and hears that it is to stop by one mechanism.
MAY_IMPORT |= {room: MAY_IMPORT[room] | {"heap", "stopping", "telemetry"} for room in SERVERS}
PURE = ("errors", "codes", "wire", "crypto", "attest", "identity", "sealed", "lending", "channel")
IMPURE_FILES = frozenset({"attest/endorse/fetch.py"})  # the one fetcher of endorsements
IMPURE_MODULES = frozenset({"socket", "subprocess", "sqlite3", "httpx2", "httpx", "requests", "time", "sqlalchemy"})


def _room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(SRC.rglob("*.py"))
PURE_FILES = [path for path in FILES if _room(path) in PURE and str(path.relative_to(SRC)) not in IMPURE_FILES]


def _calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def _large(path: Path) -> Iterator[str]:
    """Name what is too large in a file."""
    text = path.read_text()
    if text.count("\n") > 400:
        yield f"{path}: over 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = ast.get_docstring(node, clean=False) or ""
            size = (node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
            if size > 60:
                yield f"{path}:{node.lineno} {node.name}: {size} lines"


def test_imports_run_down_only() -> None:
    for path in FILES:
        room = _room(path)
        ours = {name.split(".")[1] for name in _imports(path) if name.startswith("cloister.")} - {room, "__version__"}
        assert ours <= MAY_IMPORT[room], f"{path}: {sorted(ours - MAY_IMPORT[room])}"


def test_pure_rooms_have_no_clock_network_or_database() -> None:
    for path in PURE_FILES:
        assert not {name.split(".")[0] for name in _imports(path)} & IMPURE_MODULES, path
        assert not _calls(path) & {"print", "datetime.now", "datetime.utcnow", "os.getenv", "open"}, path


def test_files_and_functions_stay_small() -> None:
    assert not [found for path in FILES for found in _large(path)]


def test_no_assert_as_a_check_and_no_room_without_a_noun() -> None:
    for path in FILES:
        assert path.stem not in {"utils", "helpers", "common", "manager"}, path
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)], path


def test_what_tests_import_by_name_is_there_once() -> None:
    """Else the folder that comes first on the path decides which one it is."""
    root = SRC.parent.parent
    paths = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    names = Counter(file.stem for path in paths if path.startswith("tests") for file in (root / path).glob("*.py"))
    imported = {name for path in (root / "tests").rglob("*.py") for name in _imports(path)}
    assert not {name for name in imported if names[name] > 1}
