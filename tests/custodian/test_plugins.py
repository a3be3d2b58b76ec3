"""Key services of others: loaded when the operator names them, never else; held to the contract."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from key_service_kit import LocalService

from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.plugins import CODES, GROUP, ForeignService
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.key_service_contract import broken_promises

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).with_name("acme_keys")
SRC = Path(__file__).parents[2] / "src" / "cloister"
NAME = "acme:vault"


@dataclass(frozen=True)
class Installed:
    """The plug-in as pip installed it, its keys, and a file that is there once it was imported."""

    site: Path
    keys: Path
    marker: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return what a custodian is given."""
        return {"ACME_KEYS": str(self.keys), "ACME_MARKER": str(self.marker)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where pip installed the distribution."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-input", "--no-cache-dir"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--target",
        str(folder / "site"),
        str(folder / "source"),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})  # noqa: S603 - our own words
    return folder / "site"


@pytest.fixture
def acme(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Yield the plug-in, found by this process and by its children, and not yet imported."""
    (tmp_path / "keys").mkdir()
    for name in ("vault", "other"):
        (tmp_path / "keys" / name).write_bytes(os.urandom(32))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    installed = Installed(site, tmp_path / "keys", tmp_path / "imported")
    for name, value in installed.environment.items():
        monkeypatch.setenv(name, value)
    yield installed
    sys.modules.pop("acme_keys", None)


def _cloister(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLOISTER_CUSTODIAN_HOME": str(home), **more}
    command = [sys.executable, "-m", "cloister", "custodian", *words, "--json"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)  # noqa: S603 - our own words


def test_a_plug_in_is_a_distribution_with_metadata(site: Path) -> None:
    (told,) = site.glob("acme_keys-1.0.dist-info/entry_points.txt")
    assert f"[{GROUP}]\nacme = acme_keys:connect" in told.read_text()


@pytest.mark.timeout(300)
def test_a_custodian_lives_by_a_plug_in_that_its_operator_names_each_time(acme: Installed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = _cloister(home, "init", "--vault", NAME)
    assert made.returncode == 0, made
    assert acme.marker.exists()
    acme.marker.unlink()
    alone = _cloister(home, "show")  # a vault file that names a plug-in: anybody may have put it there
    assert alone.returncode == 2, alone
    assert "CLOISTER_CUSTODIAN_VAULT" in alone.stdout + alone.stderr
    assert not acme.marker.exists(), "a vault file loaded code"
    named = _cloister(home, "show", CLOISTER_CUSTODIAN_VAULT=NAME)
    assert json.loads(named.stdout)["key"] == json.loads(made.stdout)["key"]
    other = _cloister(home, "show", CLOISTER_CUSTODIAN_VAULT="acme:other")
    assert other.returncode == 2


@pytest.mark.timeout(300)
def test_no_other_command_and_no_other_kind_loads_it(acme: Installed, tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(bytes(64))
    assert _cloister(tmp_path / "home", "init", "--key-file", str(tmp_path / "key")).returncode == 0
    assert _cloister(tmp_path / "home", "show", "--key-file", str(tmp_path / "key")).returncode == 0
    assert _cloister(tmp_path / "other", "init", "--vault", "acme2:vault").returncode == 2
    with pytest.raises(UsageError):
        connect(NAME, acme.environment)
    assert not acme.marker.exists()


def test_a_vault_of_a_plug_in_opens_by_it_alone(acme: Installed, tmp_path: Path) -> None:
    service = connect(NAME, acme.environment, by_operator=True)
    made = EncryptedFileVault.create(tmp_path / "vault.json", service)
    assert EncryptedFileVault.open(tmp_path / "vault.json", service).kid == made.kid
    (acme.keys / "vault").write_bytes(os.urandom(32))
    with pytest.raises(Rejected) as refused:
        EncryptedFileVault.open(tmp_path / "vault.json", service)
    assert refused.value.code == "wrong_key"
    assert broken_promises(
        lambda: connect(NAME, acme.environment, by_operator=True),
        another=lambda: connect("acme:other", acme.environment, by_operator=True),
    ) == ()  # fmt: skip


def _distribution(folder: Path, name: str, points: str, code: str = "") -> None:
    """Install by hand what no builder would make."""
    place = folder / f"{name}-2.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (place / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    (folder / f"{name}.py").write_text(code)


@pytest.mark.parametrize("kind", ["pkcs11", "aws-kms", "transit", "tpm", "kmip"])
def test_no_plug_in_takes_a_kind_of_the_house(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _distribution(tmp_path, "thief_" + kind.replace("-", "_"), f"{kind} = thief:connect", "raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError):
        connect(f"{kind}:", {}, by_operator=True)


def test_two_plug_ins_of_one_kind_are_both_refused_and_named(
    acme: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _distribution(tmp_path / "more", "squatter", "acme = squatter:connect", "raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    with pytest.raises(UsageError, match="2 plug-ins") as refused:
        connect(NAME, acme.environment, by_operator=True)
    assert refused.value.hint is not None
    assert {"acme-keys 1.0", "squatter 2.0"} <= set(refused.value.hint.replace(": ", ", ").split(", "))
    assert not acme.marker.exists()


BROKEN = {
    "does not import": ("import nothing_of_that_name", "ModuleNotFoundError"),
    "has no such function": ("", "AttributeError"),
    "cannot be parsed": ("def", "SyntaxError"),
    "raises": ("def connect(name, environment): raise KeyError(environment['SECRET'])", "KeyError"),
    "makes nothing": ("def connect(name, environment): return None", "another key"),
    "makes another": (
        "class S:\n    name = 'broken:other'\ndef connect(name, environment): return S()", "another key",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plug_in_that_cannot_be_used_is_named_and_shows_no_secret(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, word = BROKEN[fault]
    module = f"broken_{list(BROKEN).index(fault)}"
    _distribution(tmp_path, module, f"broken = {module}:connect", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=word) as refused:
        connect("broken:key", {"SECRET": "CANARY"}, by_operator=True)
    assert f"{module.replace('_', '-')} 2.0" in refused.value.message.replace("_", "-")
    assert "CANARY" not in f"{refused.value} {refused.value.__context__!r}"


@pytest.mark.parametrize(
    "name", ["acme:", "acme", ":", "ACME:vault", "acme:a b", "acme:\u00e4", "acme:" + "a" * 1025, "../acme:x"]
)
def test_a_name_that_a_vault_file_cannot_hold_is_no_plug_ins(acme: Installed, name: str) -> None:
    with pytest.raises(UsageError):
        connect(name, acme.environment, by_operator=True)
    assert not acme.marker.exists()


def _foreign(use: Callable[[], object]) -> ForeignService:
    class Service(LocalService):
        def wrap(self, key: bytes, *, context: str) -> Any:
            return use() if context != "" else key

        def unwrap(self, wrapped: bytes, *, context: str) -> Any:
            return use() if context != "" else wrapped

    return ForeignService(name="foreign:a", inner=Service())


def _raise(error: BaseException) -> Callable[[], object]:
    def use() -> object:
        raise error

    return use


@pytest.mark.parametrize(
    "error",
    [
        ValueError(b"CANARY"), KeyError("CANARY"), RecursionError("CANARY"), Malformed("CANARY"),
        Rejected.because("measurement_mismatch", "CANARY"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_a_plug_in_raises_outside_of_the_contract_is_unavailable_and_kept_out(error: Exception) -> None:
    service = _foreign(_raise(error))
    for use in (service.wrap, service.unwrap):
        with pytest.raises(Unavailable) as refused:
            use(bytes(32), context="c")
        shown = f"{refused.value!r} {refused.value.hint} {refused.value.__cause__!r} {refused.value.__context__!r}"
        assert "CANARY" not in shown


def test_what_the_contract_allows_comes_through() -> None:
    allowed = [Rejected.because(code, "foreign:a") for code in sorted(CODES)]
    for error in (*allowed, Unavailable("foreign: down"), UsageError("foreign: no address")):
        with pytest.raises(type(error)) as refused:
            _foreign(_raise(error)).unwrap(bytes(32), context="c")
        assert refused.value is error
    with pytest.raises(KeyboardInterrupt):
        _foreign(_raise(KeyboardInterrupt())).unwrap(bytes(32), context="c")


@pytest.mark.parametrize(
    "answer", [None, "text", 7, bytearray(32), [1], bytes(8193)], ids=lambda answer: type(answer).__name__
)
def test_an_answer_that_is_none_fails_closed(answer: object, tmp_path: Path) -> None:
    service = _foreign(lambda: answer)
    with pytest.raises(Unavailable):
        service.unwrap(bytes(32), context="c")
    with pytest.raises(Unavailable):
        EncryptedFileVault.create(tmp_path / "vault.json", service)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_service_prints_its_name_alone() -> None:
    assert repr(_foreign(lambda: b"")) == "ForeignService(name='foreign:a')"


def test_code_of_others_is_looked_for_in_one_file_and_never_by_an_enclave() -> None:
    """T11: what is not in the package is not measured."""
    looking = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
            if names & {"entry_points", "EntryPoint", "pkg_resources", "pkgutil", "runpy"}:
                looking.add(str(path.relative_to(SRC)))
    assert looking == {"custodian/vaults/plugins.py"}
    command = [
        sys.executable,
        "-c",
        "import sys, cloister.enclave.serve; print([m for m in sys.modules if m.startswith('cloister.custodian')])",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    assert told.stdout.strip() == "[]"
