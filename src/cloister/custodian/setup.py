"""Making a custodian's home and opening it: vault, database, certificates, lock, checkpoint.

    home/  config.toml  vault.json  custodian.db  checkpoint.json  lock
           tls/ca.pem  tls/server.pem  tls/server.key  devices/ca.pem

Not done here: reading a passphrase from a person (the command line does), serving (``serve``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.attest.chain import parse_certificates
from cloister.attest.endorse.bundle import verify_bundle
from cloister.attest.schemes.site import Site
from cloister.attest.verifier import Verifier
from cloister.custodian.checkpoint import marks_at, sign_checkpoint, write_checkpoint
from cloister.custodian.config_file import default_config_text, load_config, read_config
from cloister.custodian.database import accepted_before, back_up_database, open_store, take_lock
from cloister.custodian.restoring import migrate_database, move_database, restore_database
from cloister.custodian.service import CustodianService
from cloister.custodian.service.access import admit_token, issue_token
from cloister.custodian.service.context import Context
from cloister.custodian.service.devices import DeviceAuthority
from cloister.custodian.service.endorsements import bundle_keys
from cloister.custodian.service.start import first_log
from cloister.custodian.service.start import recover as recover_store
from cloister.custodian.store.permits import note_vault_files
from cloister.custodian.store.sqlite import SqliteStore
from cloister.custodian.tls import authority_certificate, server_authority, write_server_certificate
from cloister.custodian.tokens import SYSTEM, Role
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
from cloister.errors import UsageError
from cloister.lending.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cloister.attest.endorse import Endorsements
    from cloister.attest.endorse.bundle import VerifiedBundle
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.restoring import Restored
    from cloister.custodian.service.context import Transaction
    from cloister.custodian.store import Store
    from cloister.custodian.tokens import TokenHash
    from cloister.custodian.vaults.encrypted_file import Kdf, Unlock
    from cloister.lending.recovery import Recovery

__all__ = [
    "Initialised",
    "backup_custodian",
    "bundle_place",
    "init_custodian",
    "migrate_custodian",
    "move_custodian",
    "open_custodian",
    "open_vault",
    "recover_custodian",
    "restore_custodian",
    "vault_place",
    "verify_home_bundle",
]

_FENCE_BYTES = 16


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """A new custodian. ``admin_token`` is shown this once and stored only as its hash."""

    home: Path
    key: VerifyKey
    publisher: VerifyKey
    ca_pem: str
    url: str
    admin_token: str = field(repr=False)


def init_custodian(
    home: Path,
    unlock: Unlock,
    *,
    settings: Mapping[str, str | int | bool | tuple[str, ...]] | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
    kdf: Kdf | None = None,
    person: str | None = None,
    first: Role = Role.ADMIN,
    digest: TokenHash | None = None,
) -> Initialised:
    """Make a custodian in an absent or empty folder ``home`` and return its first token, of role ``first``.

    With ``digest`` its holder has made that token, and nobody else gets to see it. ``person`` answers for the token.
    Raises ``UsageError`` where something is there already.
    """
    now = clock()
    text = default_config_text(settings or {})
    config = load_config(text, environment={}, now=now)
    _make_home(home)
    (home / "config.toml").write_text(text, encoding="utf-8")
    try:
        vault = EncryptedFileVault.create(vault_place(home), unlock, rng=rng, kdf=kdf)
    except BaseException:
        _unmake_home(home)
        raise
    ca_pem = _write_authorities(home, vault, config, now)
    identity = vault.signing_key.verify_key.raw
    store = open_store(home, config, fence=rng(_FENCE_BYTES), identity=identity, new_at=now)
    try:
        context = Context(
            store=store, vault=vault, verifier=Verifier([]), config=config, clock=clock, rng=rng,
            log=first_log(now), checkpoint_path=home / config.checkpoint,
        )  # fmt: skip
        write_checkpoint(home / config.checkpoint, sign_checkpoint(context.checkpoint(), vault.signing_key))
        token = context.transact(lambda transaction: _begin(transaction, vault, first, person, digest))
    finally:
        store.close()
    return Initialised(
        home=home,
        key=vault.signing_key.verify_key,
        publisher=vault.publisher_key.verify_key,
        ca_pem=ca_pem,
        url=config.public_url(config.port),
        admin_token=token,
    )


def _begin(
    transaction: Transaction, vault: EncryptedFileVault, first: Role, person: str | None, digest: TokenHash | None
) -> str:
    """Write the first entries; return the first token, nothing where its holder has made it."""
    identity = vault.signing_key.verify_key.raw.hex()
    transaction.record(EventKind.CUSTODIAN_INITIALISED, SYSTEM, "custodian", custodian=identity)
    note_vault_files(transaction.connection, [vault.file_digest], transaction.now)
    name = f"first {first.value}"
    if digest is None:
        return issue_token(transaction, SYSTEM, role=first, name=name, person=person)
    admit_token(transaction, SYSTEM, digest, role=first, name=name, loan=None, life=None, person=person, own=True)
    return ""


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        if any(home.iterdir()):
            msg = f"custodian home {home}: not empty"
            raise UsageError(msg, hint="choose an empty folder; init never replaces a custodian")
        (home / "tls").mkdir(mode=0o700)
        (home / "devices").mkdir(mode=0o700)
    except OSError as exc:
        msg = f"custodian home {home}: {exc.strerror}"
        raise UsageError(msg) from exc


def _unmake_home(home: Path) -> None:
    """Leave an empty folder, so that init can be tried again once the key service answers."""
    (home / "config.toml").unlink()
    (home / "tls").rmdir()
    (home / "devices").rmdir()


def _write_authorities(home: Path, vault: EncryptedFileVault, config: Config, now: datetime) -> str:
    """Write both authorities' certificates and the first server certificate; return the TLS authority's."""
    tls = authority_certificate(vault.tls_authority_key, name=f"Cloister custodian {vault.signing_key.key_id}", now=now)
    devices = authority_certificate(
        vault.device_authority_key, name=f"Cloister devices {vault.signing_key.key_id}", now=now
    )
    (home / "tls" / "ca.pem").write_bytes(tls)
    (home / "devices" / "ca.pem").write_bytes(devices)
    write_server_certificate(home / "tls", vault.tls_authority_key, names=config.names, now=now)
    return tls.decode("ascii")


def vault_place(home: Path) -> Path:
    """Return where a home's vault file lies."""
    return home / "vault.json"


def open_vault(home: Path, unlock: Unlock) -> EncryptedFileVault:
    """Return the home's vault, for sealing on the custodian's own machine. Needs no lock."""
    return EncryptedFileVault.open(vault_place(home), unlock)


def open_custodian(
    home: Path,
    unlock: Unlock | EncryptedFileVault,
    *,
    make_verifier: Callable[[Site], Verifier],
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
    make_store: Callable[..., Store] = SqliteStore,
    endorsements: Endorsements | None = None,
    bounds: Callable[[Config], Config] = lambda config: config,
) -> CustodianService:
    """Open a home and hold its lock until the service is closed. ``unlock`` may be its vault, opened before.

    ``make_verifier`` gets what this site trusts beside the pinned vendors and returns the verifier; it
    is the one place where a simulated TEE can be let in. ``endorsements`` take the place of those that the
    settings name: synthetic vendors bring their own. ``make_store`` is a seam for tests;
    ``bounds`` returns the settings that count where another than the home's owner has a say. Raises
    ``Unavailable`` naming the process that holds the lock (T39), ``Rejected`` for an older database (C10)
    or a wrong key.
    """
    now = clock()
    config = bounds(read_config(home, environment=environment or {}, now=now))
    lock = take_lock(home, config)
    try:
        vault = unlock if isinstance(unlock, EncryptedFileVault) else open_vault(home, unlock)
        write_server_certificate(home / "tls", vault.tls_authority_key, names=config.names, now=now)
        ca_pem = server_authority(home, config)
        verifier = make_verifier(_site(home, config))
        devices = _device_authority(home, config)
        identity = vault.signing_key.verify_key.raw
        store = open_store(home, config, fence=rng(_FENCE_BYTES), identity=identity, make_store=make_store)
        try:
            return CustodianService(
                store, vault, verifier, config=config, clock=clock, rng=rng, home=home, vault_file=vault.file_digest,
                ca_pem=ca_pem,
                device_authority=devices, endorsements=endorsements, on_close=lock.close,
            )  # fmt: skip
        except BaseException:
            store.close()
            raise
    except BaseException:
        lock.close()
        raise


def _site(home: Path, config: Config) -> Site:
    """Return what the settings trust: this custodian's own device authority, and whom they name."""
    own = (home / "devices" / "ca.pem").read_bytes()
    return Site(
        tpm_authorities=(own, *read_pems(home, config.tpm_authorities)),
        arm_anchors=tuple(_read_anchors(home, name) for name in config.arm_anchors),
        maa_hosts=config.maa_hosts,
        audiences=config.token_audiences,
    )


def _read_anchors(home: Path, name: str) -> bytes:
    try:
        return (home / name).read_bytes()
    except OSError as exc:
        msg = f"setting arm_anchors: {name}: {exc.strerror}"
        raise UsageError(msg) from exc


def _device_authority(home: Path, config: Config) -> DeviceAuthority:
    """Return who enrols TPM devices here. Without roots and pinned keys it refuses every device."""
    certificate = _der((home / "devices" / "ca.pem").read_bytes())
    return DeviceAuthority(certificate=certificate, ek_roots=read_pems(home, config.ek_roots), pinned=config.pinned_eks)


def _der(pem: bytes) -> bytes:
    return parse_certificates(pem)[0].der


def read_pems(home: Path, names: Sequence[str]) -> list[bytes]:
    """Return every certificate in the named files, each as PEM. Raises ``UsageError``, ``Malformed``."""
    found: list[bytes] = []
    for name in names:
        try:
            data = (home / name).read_bytes()
        except OSError as exc:
            msg = f"{home / name}: {exc.strerror}"
            raise UsageError(msg) from exc
        found += [certificate.pem for certificate in parse_certificates(data)]
    return found


def recover_custodian(
    home: Path,
    unlock: Unlock,
    *,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
) -> Recovery:
    """Come back after an older database was put in place: new epoch, quiet time (C11)."""
    now = clock()
    config = read_config(home, environment=environment or {}, now=now)
    with take_lock(home, config):
        vault = open_vault(home, unlock)
        identity = vault.signing_key.verify_key.raw
        store = open_store(home, config, fence=rng(_FENCE_BYTES), identity=identity)
        try:
            return recover_store(
                store, vault.signing_key, marks_at(home / config.checkpoint, shared=config.is_shared), now=now
            )
        finally:
            store.close()


def backup_custodian(home: Path, out: Path, *, environment: Mapping[str, str] | None = None) -> int:
    """Copy the home's database and records of variants to the new file ``out``; return its size in bytes.

    Also while the custodian runs.
    """
    config = read_config(home, environment=environment or {}, now=utc_now())
    return back_up_database(home, config, out)


def restore_custodian(
    home: Path, unlock: Unlock, source: Path, *, environment: Mapping[str, str] | None = None
) -> Restored:
    """Put a backup where the home's database was. Raises as ``restore_database``."""
    config = read_config(home, environment=environment or {}, now=utc_now())
    return restore_database(home, config, source, vault=open_vault(home, unlock))


def migrate_custodian(
    home: Path, *, check: bool = False, environment: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """Bring the schema of the home's database up to date, or only look. Raises as ``migrate_database``."""
    config = read_config(home, environment=environment or {}, now=utc_now())
    return migrate_database(home, config, check=check)


def move_custodian(
    home: Path,
    target: str,
    *,
    progress: Callable[[int, int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Carry the home's database into the empty database ``target``. Raises as ``move_database``."""
    config = read_config(home, environment=environment or {}, now=utc_now())
    return move_database(home, config, target, progress=progress)


def bundle_place(home: Path, *, environment: Mapping[str, str] | None = None) -> Path:
    """Return where a home's bundle of endorsements lies, or would."""
    return home / read_config(home, environment=environment or {}, now=utc_now()).endorsement_bundle


def verify_home_bundle(
    home: Path, data: bytes, *, keys: Sequence[VerifyKey], environment: Mapping[str, str] | None = None
) -> VerifiedBundle:
    """Return a bundle that the home's custodian will accept, also while it runs: no older than its last.

    ``keys`` count beside those of the setting ``endorsement_keys``, here and not for the custodian itself, which
    counts its own instead. Raises as ``verify_bundle``; ``Unavailable`` where the database cannot be read.
    """
    now = utc_now()
    config = read_config(home, environment=environment or {}, now=now)
    last = accepted_before(home, config)
    return verify_bundle(data, (*keys, *bundle_keys(config)), now, last=last)
