"""What a stranger installs: the same bytes from the same commit, with pages, units and a list of what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest

import authorities
import cloister
from cloister.cli import app
from cloister.cli.manual import manual_pages

ROOT = Path(__file__).parent.parent.parent
SHARE = ROOT / "share"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def _run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)  # noqa: S603


def _build(tree: Path, out: Path, **environment: str) -> dict[str, str]:
    """Build wheel and sdist of a tree; return the digest of each."""
    _run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=tree, env=os.environ | environment)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _build(ROOT, out, SOURCE_DATE_EPOCH="1700000000")
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_two_builds_give_the_same_bytes_and_the_sdist_gives_the_same_wheel(built: Path, tmp_path: Path) -> None:
    odd = {"SOURCE_DATE_EPOCH": "1700000000", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    (sdist,) = built.glob("*.tar.gz")
    umask = os.umask(0o077)
    try:
        with tarfile.open(sdist) as archive:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(tmp_path / "tree")  # noqa: S202 - our own
        (tree,) = (tmp_path / "tree").iterdir()
        again, from_sdist = _build(ROOT, tmp_path / "again", **odd), _build(tree, tmp_path / "out", **odd)
    finally:
        os.umask(umask)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}
    assert again == digests
    assert {name: from_sdist[name] for name in from_sdist if name.endswith(".whl")}.items() <= digests.items()


def test_wheel_holds_the_program_and_nothing_that_is_not_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"cloister", f"cloister-{cloister.__version__}.dist-info", f"cloister-{cloister.__version__}.data"}
    ours = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "cloister").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("cloister/")} == ours
    assert f"cloister-{cloister.__version__}.dist-info/licenses/LICENSE" in names
    assert f"cloister-{cloister.__version__}.dist-info/sboms/cloister.cdx.json" in names
    data = f"cloister-{cloister.__version__}.data/data/share"
    assert {f"{data}/man/man1/cloister.1", f"{data}/cloister/systemd/cloister-custodian.service"} <= names


def test_list_of_what_is_in_it_names_every_locked_dependency_with_digests() -> None:
    document = json.loads((ROOT / "requirements" / "cloister.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    own = document["metadata"]["component"]
    assert (own["name"], own["version"]) == ("cloister", cloister.__version__)
    text = (ROOT / "requirements" / "run.txt").read_text()
    pins = {(_plain(name), version) for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE)}
    listed = {(_plain(item["name"]), item["version"]): item for item in document["components"]}
    unmarked = re.findall(r"^([\w.-]+)==([^ ;\\]+) \\$", text, re.MULTILINE)
    assert set(listed) <= pins
    assert {(_plain(name), version) for name, version in unmarked} <= set(listed)
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", text))
    for item in listed.values():
        (files,) = (where for where in item["externalReferences"] if where.get("hashes"))
        assert {entry["content"] for entry in files["hashes"]} <= digests
        assert files["hashes"], item["name"]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_locked_dependencies_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[>\[]", item)[0] for item in project["dependencies"]}
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE))
    assert {_plain(name) for name in wanted} <= {_plain(name) for name in pinned}


def test_man_pages_are_of_this_command_line(tmp_path: Path) -> None:
    """In a process of its own: what other tests leave in theirs is not what people get."""
    _run(sys.executable, "-m", "cloister", "manual", tmp_path)
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    there = {path.name: path.read_text(encoding="utf-8") for path in (SHARE / "man" / "man1").iterdir()}
    assert there == pages, "make manual"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff on this machine")
def test_man_pages_are_roff_without_a_warning() -> None:
    for page in sorted((SHARE / "man" / "man1").iterdir()):
        said = _run("groff", "-man", "-ww", "-Tutf8", page)
        assert not said.stderr, page.name


def test_text_of_a_command_steers_no_man_page() -> None:
    @click.command(help=".so /etc/passwd\n\n'br \\fBbold\\fR")
    @click.option("--x", help=".ex \\*[y]")
    def hostile(x: str) -> None: ...

    group = click.Group(commands={"hostile": hostile}, help="a group")
    page = manual_pages(group)["cloister-hostile.1"]
    assert not [line for line in page.splitlines() if line.startswith((".so", "'br", ".ex"))]
    assert "\\*" not in page
    assert "\\f" not in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_of_this_program(shell: str) -> None:
    place = {
        "bash": "bash-completion/completions/cloister",
        "zsh": "zsh/site-functions/_cloister",
        "fish": "fish/vendor_completions.d/cloister.fish",
    }
    assert "_CLOISTER_COMPLETE" in (SHARE / place[shell]).read_text()


def _command(unit: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    return line.split()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit_starts_a_command_that_there_is_with_options_that_it_has(unit: Path) -> None:
    program, *words = _command(unit)
    assert program == "cloister"
    command: click.Command | None = app
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0))
    assert command is not None
    options = {name for option in command.params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_unit_is_valid_and_closed(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@", "@x")
    copy.write_text(re.sub(r"^ExecStart=cloister", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    assert copy.name not in _run("systemd-analyze", "verify", "--man=no", copy).stderr
    _run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", copy)


@pytest.mark.drill
def test_pipx_and_uvx_run_it_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man", "UV_CACHE_DIR": "uv", "HOME": ""}
    environment = authorities.let_in() | {name: str(tmp_path / place) for name, place in places.items()}
    environment.pop("PYTHONPATH", None)
    tools = tmp_path / "tools" / "bin"
    _run(sys.executable, "-m", "venv", tools.parent)
    _run(tools / "pip", "install", "--quiet", "pipx", "uv", env=authorities.let_in())
    _run(tools / "pipx", "install", wheel, env=environment)
    for command in ([tmp_path / "bin" / "cloister"], [tools / "uvx", "--from", wheel, "cloister"]):
        assert cloister.__version__ in _run(*command, "--version", env=environment).stdout
    assert (tmp_path / "man" / "man1" / "cloister.1").exists()
