"""The schema as a list of steps. A step, once released, is never changed: a change is a new step.

Each step runs in the same transaction as the note that it ran, so a failed one leaves the old schema
(T93). A database with more steps than we know is refused, never guessed at.

Steps are written once, with the types INTEGER, TEXT and BLOB, and spelled for each database by ``dialects``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

from cloister.custodian.store.dialects import spell
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

__all__ = ["MIGRATIONS", "migrate", "schema_version"]

_FIRST = (
    # one row: the epoch (C2), who may write (T39), the latest time ever written (T52),
    # recovery's quiet time (C11), how often something was blocked or unblocked (C9)
    """CREATE TABLE epoch (
        id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL CHECK (epoch >= 1),
        fence BLOB NOT NULL, latest INTEGER NOT NULL, quiet_until INTEGER NOT NULL DEFAULT 0,
        block_version INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE token (
        id TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL, loan TEXT,
        created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER,
        CHECK ((role = 'borrower') = (loan IS NOT NULL)))""",
    """CREATE TABLE model (
        digest TEXT PRIMARY KEY, name TEXT NOT NULL, manifest BLOB NOT NULL, signature BLOB NOT NULL,
        envelope BLOB NOT NULL, published_at INTEGER NOT NULL, withdrawn_at INTEGER)""",
    """CREATE TABLE loan (
        id TEXT PRIMARY KEY, borrower TEXT NOT NULL, terms BLOB NOT NULL, policy BLOB NOT NULL,
        policy_version INTEGER NOT NULL, created_at INTEGER NOT NULL)""",
    """CREATE TABLE loan_model (
        loan TEXT NOT NULL REFERENCES loan (id), name TEXT NOT NULL, digest TEXT NOT NULL REFERENCES model (digest),
        PRIMARY KEY (loan, name))""",
    "CREATE INDEX loan_model_by_digest ON loan_model (digest)",
    """CREATE TABLE allowance (
        loan TEXT NOT NULL REFERENCES loan (id), meter TEXT NOT NULL,
        balance INTEGER NOT NULL CHECK (balance >= 0 AND balance <= 9007199254740991), PRIMARY KEY (loan, meter))""",
    """CREATE TABLE instance (
        id TEXT PRIMARY KEY, loan TEXT NOT NULL REFERENCES loan (id), pub BLOB NOT NULL, kem_digest BLOB NOT NULL,
        tee TEXT NOT NULL, tier TEXT NOT NULL, result TEXT NOT NULL, policy_digest TEXT NOT NULL,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL, req_digest BLOB, reply BLOB, chain_head BLOB NOT NULL,
        attested_at INTEGER NOT NULL, committed_at INTEGER NOT NULL, dead_at INTEGER NOT NULL,
        status TEXT NOT NULL, written_off INTEGER NOT NULL DEFAULT 0, clone_proof INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX instance_by_loan ON instance (loan)",
    "CREATE INDEX instance_by_death ON instance (written_off, dead_at)",
    """CREATE TABLE instance_meter (
        instance TEXT NOT NULL REFERENCES instance (id), meter TEXT NOT NULL, ceiling INTEGER NOT NULL,
        used INTEGER NOT NULL CHECK (used >= 0), PRIMARY KEY (instance, meter), CHECK (ceiling >= used))""",
    """CREATE TABLE nonce (
        value BLOB PRIMARY KEY, loan TEXT NOT NULL REFERENCES loan (id), expires_at INTEGER NOT NULL,
        used_at INTEGER)""",
    "CREATE INDEX nonce_by_loan ON nonce (loan, expires_at)",
    """CREATE TABLE ledger (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, loan TEXT NOT NULL REFERENCES loan (id), meter TEXT NOT NULL,
        debit TEXT NOT NULL, credit TEXT NOT NULL, units INTEGER NOT NULL CHECK (units > 0))""",
    "CREATE INDEX ledger_by_loan ON ledger (loan, meter)",
    """CREATE TABLE block (
        kind TEXT NOT NULL, subject TEXT NOT NULL, loan TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL,
        by TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (kind, subject, loan))""",
    """CREATE TABLE request (
        id TEXT PRIMARY KEY, loan TEXT NOT NULL REFERENCES loan (id), meter TEXT NOT NULL,
        units INTEGER NOT NULL CHECK (units > 0), reason TEXT NOT NULL, state TEXT NOT NULL,
        created_at INTEGER NOT NULL, decided_at INTEGER, decided_by TEXT, granted INTEGER, answer TEXT)""",
    "CREATE INDEX request_by_loan ON request (loan, state)",
    """CREATE TABLE idempotency (
        actor TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL, expires_at INTEGER NOT NULL,
        PRIMARY KEY (actor, key))""",
    "CREATE TABLE audit (idx INTEGER PRIMARY KEY, at INTEGER NOT NULL, entry BLOB NOT NULL)",
    """CREATE TABLE enrolment (
        id TEXT PRIMARY KEY, device TEXT NOT NULL, pending BLOB NOT NULL, expires_at INTEGER NOT NULL)""",
    """CREATE TABLE device (
        id TEXT PRIMARY KEY, ak_sha256 BLOB NOT NULL, certificate BLOB NOT NULL, enrolled_at INTEGER NOT NULL)""",
    # append-only by the database's own word, not only by our habit
    "CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger is append-only'); END",
    "CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger is append-only'); END",
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
)

_SECOND = (
    # what every key release was decided by, kept for recall; equal bytes are stored once
    "CREATE TABLE artifact (sha256 BLOB PRIMARY KEY, data BLOB NOT NULL)",
    """CREATE TABLE key_release (
        id INTEGER PRIMARY KEY, instance TEXT NOT NULL UNIQUE REFERENCES instance (id), at INTEGER NOT NULL,
        nonce BLOB NOT NULL, custodian BLOB NOT NULL, kem_pub BLOB NOT NULL,
        evidence BLOB NOT NULL REFERENCES artifact (sha256), devices BLOB NOT NULL REFERENCES artifact (sha256),
        software BLOB NOT NULL REFERENCES artifact (sha256), policy BLOB NOT NULL REFERENCES artifact (sha256))""",
    "CREATE INDEX key_release_by_time ON key_release (at)",
    """CREATE TABLE release_endorsement (
        release INTEGER NOT NULL REFERENCES key_release (id), name TEXT NOT NULL,
        sha256 BLOB NOT NULL REFERENCES artifact (sha256), PRIMARY KEY (release, name))""",
    "CREATE INDEX release_endorsement_by_artifact ON release_endorsement (sha256)",
    # one row: the newest bundle of endorsements that was accepted (T15)
    """CREATE TABLE endorsement_bundle (
        id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, sha256 BLOB NOT NULL,
        accepted_at INTEGER NOT NULL)""",
)

_LOG_HEAD = (
    # one row: where log and ledger stand, written with the entries (docs/spec/audit-log.md, section 5)
    """CREATE TABLE log_head (
        id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, root BLOB NOT NULL, latest INTEGER NOT NULL,
        ledger_size INTEGER NOT NULL, escrowed INTEGER NOT NULL)""",
    # what was committed and has no place in the log yet, where several custodians write
    "CREATE TABLE audit_pending (id INTEGER PRIMARY KEY, batch BLOB NOT NULL)",
)

_WITNESSES = (
    # what witnesses said of the log (docs/spec/transparency-log.md): evidence for others, no part of the log
    """CREATE TABLE cosignature (
        witness TEXT NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL, line TEXT NOT NULL,
        PRIMARY KEY (witness, size))""",
    "CREATE INDEX audit_by_time ON audit (at)",
)

_CLOCKS = (
    # whether an instance's attested clock is outside the host's control, and by which rule (T37); not known: no
    "ALTER TABLE instance ADD COLUMN clock_trusted INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE instance ADD COLUMN clock TEXT NOT NULL DEFAULT 'unknown'",
)

_USAGE = (
    # the enclaves' usage reports as they were signed; minutes are numbered from 1970
    """CREATE TABLE usage_report (
        instance TEXT NOT NULL REFERENCES instance (id), first INTEGER NOT NULL CHECK (first >= 1),
        last INTEGER NOT NULL, earliest INTEGER NOT NULL, latest INTEGER NOT NULL, head BLOB NOT NULL,
        received_at INTEGER NOT NULL, statement BLOB NOT NULL,
        PRIMARY KEY (instance, first), UNIQUE (instance, last), CHECK (last >= first), CHECK (latest >= earliest))""",
    # their sums: consumer is empty where a record names none
    """CREATE TABLE usage_total (
        instance TEXT NOT NULL REFERENCES instance (id), model TEXT NOT NULL, consumer TEXT NOT NULL,
        units INTEGER NOT NULL CHECK (units >= 0), PRIMARY KEY (instance, model, consumer))""",
    """CREATE TABLE usage_sum (
        instance TEXT NOT NULL, first INTEGER NOT NULL, minute INTEGER NOT NULL, model TEXT NOT NULL,
        consumer TEXT NOT NULL, inferences INTEGER NOT NULL, units INTEGER NOT NULL, cut_units INTEGER NOT NULL,
        PRIMARY KEY (instance, minute, model, consumer, first),
        FOREIGN KEY (instance, first) REFERENCES usage_report (instance, first))""",
    # the first proof that an instance forked: two statements of its key that contradict each other
    """CREATE TABLE fork_evidence (
        instance TEXT PRIMARY KEY REFERENCES instance (id), idx INTEGER NOT NULL, first BLOB NOT NULL,
        second BLOB NOT NULL, at INTEGER NOT NULL)""",
)

_CONTRACTS = (
    # every version of a loan's contract: as offered, and since when it is agreed on, null before that
    """CREATE TABLE contract (
        loan TEXT NOT NULL REFERENCES loan (id), version INTEGER NOT NULL, document BLOB NOT NULL,
        created_at INTEGER NOT NULL, agreed_at INTEGER, PRIMARY KEY (loan, version))""",
)

_OFFLINE = (
    # vouchers: what an instance may reach with an overdraft, what only files have told, when no voucher can live
    "ALTER TABLE instance ADD COLUMN voucher_until INTEGER",
    "ALTER TABLE instance_meter ADD COLUMN filed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE instance_meter ADD COLUMN reach INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE voucher (
        instance TEXT NOT NULL REFERENCES instance (id), seq INTEGER NOT NULL, req_digest BLOB NOT NULL,
        digest BLOB NOT NULL, reply BLOB NOT NULL, issued_at INTEGER NOT NULL, PRIMARY KEY (instance, seq))""",
    """CREATE TABLE consumption (
        instance TEXT PRIMARY KEY REFERENCES instance (id), statement BLOB NOT NULL, at INTEGER NOT NULL)""",
    # tickets: the latest of each instance, and the units of all it had
    """CREATE TABLE ticket (
        instance TEXT PRIMARY KEY REFERENCES instance (id), idx INTEGER NOT NULL, req_digest BLOB NOT NULL,
        reply BLOB NOT NULL, units INTEGER NOT NULL CHECK (units >= 0))""",
)

_ROTATION = (
    # key-encryption keys that rotations made, wrapped by the vault; null once destroyed. Number 1 is the vault file's
    """CREATE TABLE kek (
        number INTEGER PRIMARY KEY CHECK (number >= 2), id TEXT NOT NULL UNIQUE, wrapped BLOB,
        made_at INTEGER NOT NULL, retired_at INTEGER, destroyed_at INTEGER,
        CHECK (wrapped IS NOT NULL OR destroyed_at IS NOT NULL))""",
    # one row: how often keys rotate by themselves, and when next; null for never
    """CREATE TABLE rotation (
        id INTEGER PRIMARY KEY CHECK (id = 1), every_s INTEGER, next_at INTEGER)""",
    # the key epoch an instance's lease was last granted in
    "ALTER TABLE instance ADD COLUMN key_epoch INTEGER NOT NULL DEFAULT 1",
    # which wrapping of a model's key every instance was given it from, each time; kept as long as the instance is known
    """CREATE TABLE released_key (
        id INTEGER PRIMARY KEY, instance TEXT NOT NULL REFERENCES instance (id), model TEXT NOT NULL,
        envelope BLOB NOT NULL, kek_id TEXT NOT NULL, key_version INTEGER NOT NULL, at INTEGER NOT NULL)""",
    "CREATE INDEX released_key_by_instance ON released_key (instance)",
)

_PROPOSALS = (
    # who answers for a token; what one person asked for and another has to approve (docs/spec/proposal.md)
    "ALTER TABLE token ADD COLUMN person TEXT",
    """CREATE TABLE proposal (
        id TEXT PRIMARY KEY, operation TEXT NOT NULL, request BLOB NOT NULL, body BLOB NOT NULL, basis BLOB NOT NULL,
        digest BLOB NOT NULL, actor TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, person TEXT NOT NULL,
        created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, state TEXT NOT NULL, decided_at INTEGER,
        decided_by TEXT, reason TEXT NOT NULL, outcome BLOB,
        CHECK ((state = 'open') = (decided_at IS NULL)))""",
    "CREATE INDEX proposal_by_state ON proposal (state, expires_at)",
)

_TENANTS = (
    # of a host: the tenants whose custodians it runs. A name is never given twice
    """CREATE TABLE tenant (
        name TEXT PRIMARY KEY, state TEXT NOT NULL, discoverable INTEGER NOT NULL, created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL)""",
)

_CERTIFICATES = (
    # authorities for peers, their keys wrapped by the vault; what they issued, until a while after its end
    """CREATE TABLE authority (
        number INTEGER PRIMARY KEY CHECK (number >= 1), certificate BLOB NOT NULL, wrapped BLOB NOT NULL,
        made_at INTEGER NOT NULL, issues_from INTEGER NOT NULL, ends_at INTEGER NOT NULL, retired_at INTEGER)""",
    """CREATE TABLE certificate (
        fingerprint TEXT PRIMARY KEY, spki_sha256 BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
        authority INTEGER NOT NULL REFERENCES authority (number), issued_at INTEGER NOT NULL,
        ends_at INTEGER NOT NULL)""",
    "CREATE INDEX certificate_by_end ON certificate (ends_at)",
)

_SESSIONS = (
    # tokens of minutes, and the key that each is bound to (docs/spec/session.md)
    """CREATE TABLE session (
        id TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, actor TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL,
        loan TEXT, person TEXT, key BLOB, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
        renew_until INTEGER NOT NULL, ended_at INTEGER, CHECK (renew_until >= expires_at))""",
    "CREATE INDEX session_by_actor ON session (actor, expires_at)",
)

_FORGETTING = (
    # what an entry keeps once its body was pruned; no body goes whose hash is not here
    "CREATE TABLE audit_pruned (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, pruning INTEGER NOT NULL)",
    """CREATE TRIGGER audit_pruned_no_update BEFORE UPDATE ON audit_pruned
        BEGIN SELECT RAISE(ABORT, 'audit_pruned is append-only'); END""",
    """CREATE TRIGGER audit_pruned_no_delete BEFORE DELETE ON audit_pruned
        BEGIN SELECT RAISE(ABORT, 'audit_pruned is append-only'); END""",
    "DROP TRIGGER audit_no_delete",
    """CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        WHEN NOT EXISTS (SELECT 1 FROM audit_pruned WHERE idx = OLD.idx)
        BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END""",
    # one row: the key under which names are looked up, wrapped by the vault
    "CREATE TABLE audit_secret (id INTEGER PRIMARY KEY CHECK (id = 1), wrapped BLOB NOT NULL)",
    # a person that entries name by pseudonym: key and name, wrapped by the vault; null once it was forgotten
    """CREATE TABLE audit_subject (
        pseudonym TEXT PRIMARY KEY, lookup BLOB UNIQUE, sealed BLOB, made_at INTEGER NOT NULL, forgotten_at INTEGER,
        CHECK ((sealed IS NULL) = (forgotten_at IS NOT NULL) AND (lookup IS NULL) = (sealed IS NULL)))""",
    # what opens commitments of entries, wrapped by the vault, and whose pseudonyms those entries have
    "CREATE TABLE audit_opening (commitment BLOB PRIMARY KEY, sealed BLOB NOT NULL)",
    """CREATE TABLE audit_opening_subject (
        commitment BLOB NOT NULL, pseudonym TEXT NOT NULL, PRIMARY KEY (pseudonym, commitment))""",
    "CREATE INDEX audit_opening_subject_by_commitment ON audit_opening_subject (commitment)",
    # legal holds, also those that were lifted
    """CREATE TABLE audit_hold (
        id TEXT PRIMARY KEY, scope TEXT NOT NULL, reason TEXT NOT NULL, placed_at INTEGER NOT NULL,
        placed_by TEXT NOT NULL, lifted_at INTEGER)""",
)

_WATCHING = (
    # alarms that are active, and since when; place is empty but for what one custodian of several sees alone
    """CREATE TABLE alarm (
        code TEXT NOT NULL, place TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (code, place))""",
    # one row, written to see whether writing works
    "CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL)",
)

_ISSUERS = (
    # whose word counts about callers, as canonical documents (docs/spec/identity.md); one row: how often
    # that changed, once it has
    "CREATE TABLE issuer (id TEXT PRIMARY KEY, document BLOB NOT NULL, set_at INTEGER NOT NULL)",
    "CREATE TABLE issuer_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)",
)

_DEVICES = (
    # devices that are retired, and what people call them; on which device of ours an instance attested, empty for none
    "ALTER TABLE device ADD COLUMN label TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE device ADD COLUMN maker TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE device ADD COLUMN retired_at INTEGER",
    "ALTER TABLE device ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE instance ADD COLUMN device TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX instance_by_device ON instance (device)",
)

_PERSONS = (
    # who was ever let in as an administrator: the rule of two persons counts them, and never fewer
    "CREATE TABLE person (name TEXT PRIMARY KEY, since INTEGER NOT NULL)",
    """INSERT INTO person (name, since)
        SELECT person, min(created_at) FROM token WHERE role = 'admin' AND person IS NOT NULL GROUP BY person""",
)

_LENT_ISSUERS = (
    # keys that were fetched, as they came: what enclaves are told, so every custodian over the database tells the same
    "CREATE TABLE issuer_keys (issuer TEXT PRIMARY KEY, keys BLOB NOT NULL)",
)

_LISTENERS = (
    # the certificate of a listener's key, to be told again
    "ALTER TABLE certificate ADD COLUMN der BLOB",
)

_PERMITS = (
    # permits to make shares that are good no more: used, by the split it was for, or revoked (docs/spec/permit.md)
    "CREATE TABLE permit_end (proposal TEXT PRIMARY KEY, ended_at INTEGER NOT NULL, split TEXT)",
    # vault files that a start has seen, by SHA-256: one that is not here was made since
    "CREATE TABLE vault_file (digest TEXT PRIMARY KEY, noted_at INTEGER NOT NULL)",
    # one row: which operations needed two persons when a custodian last started, and whether they were spelled out
    """CREATE TABLE start_rule (
        id INTEGER PRIMARY KEY CHECK (id = 1), operations TEXT NOT NULL, spelled INTEGER NOT NULL)""",
)

_VOUCHED = (
    # the token of staff by whose word a host renews its certificate itself, for as long as that token is good
    "ALTER TABLE certificate ADD COLUMN vouched_by TEXT",
)

_THIRD = (*_LOG_HEAD, *_WITNESSES, *_CLOCKS, *_USAGE, *_CONTRACTS, *_OFFLINE)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST,
    _SECOND,
    _THIRD,
    _ROTATION,
    _PROPOSALS,
    _TENANTS,
    _CERTIFICATES,
    _SESSIONS,
    _FORGETTING,
    _WATCHING,
    _ISSUERS,
    _PERSONS,
    _DEVICES,
    _LENT_ISSUERS,
    _LISTENERS,
    _PERMITS,
    _VOUCHED,
)
"""Step n takes a database from schema version n to n + 1."""


def schema_version(connection: Connection) -> int:
    """Return how many steps this database has seen; 0 for an empty one."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return int(connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one())


def migrate(connection: Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> tuple[int, int]:
    """Bring the database to the newest schema, inside the caller's transaction; return the versions before and after.

    Raises ``UsageError`` for a schema newer than this program.
    """
    version = schema_version(connection)
    if version > len(migrations):
        msg = f"database: schema version {version}, this program knows {len(migrations)}"
        raise UsageError(msg, hint="a newer Cloister wrote this database: run that one, or restore a backup")
    if version == 0:
        connection.exec_driver_sql(spell("CREATE TABLE schema_version (version INTEGER NOT NULL)", connection.dialect))
        connection.exec_driver_sql("INSERT INTO schema_version (version) VALUES (0)")
    for step in migrations[version:]:
        for statement in step:
            connection.exec_driver_sql(spell(statement, connection.dialect))
    connection.exec_driver_sql(f"UPDATE schema_version SET version = {len(migrations)}")  # noqa: S608 - a number of ours
    return version, len(migrations)
