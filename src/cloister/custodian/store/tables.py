"""The tables as SQLAlchemy Core knows them. Types and constraints stand in ``migrations``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import column, table

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import TableClause

__all__ = [
    "ALARM",
    "ALLOWANCE",
    "ARTIFACT",
    "AUDIT",
    "AUDIT_HOLD",
    "AUDIT_OPENING",
    "AUDIT_OPENING_SUBJECT",
    "AUDIT_PENDING",
    "AUDIT_PRUNED",
    "AUDIT_SECRET",
    "AUDIT_SUBJECT",
    "AUTHORITY",
    "BLOCK",
    "CERTIFICATE",
    "CONSUMPTION",
    "CONTRACT",
    "COSIGNATURE",
    "DEVICE",
    "ENDORSEMENT_BUNDLE",
    "ENROLMENT",
    "EPOCH",
    "FORK_EVIDENCE",
    "IDEMPOTENCY",
    "INSTANCE",
    "INSTANCE_METER",
    "ISSUER",
    "ISSUER_KEYS",
    "ISSUER_VERSION",
    "KEK",
    "KEY_RELEASE",
    "LEDGER",
    "LOAN",
    "LOAN_MODEL",
    "LOG_HEAD",
    "MODEL",
    "NONCE",
    "PERMIT_END",
    "PERSON",
    "PROBE",
    "PROPOSAL",
    "RELEASED_KEY",
    "RELEASE_ENDORSEMENT",
    "REQUEST",
    "ROTATION",
    "SESSION",
    "START_RULE",
    "TABLES",
    "TENANT",
    "TICKET",
    "TOKEN",
    "USAGE_REPORT",
    "USAGE_SUM",
    "USAGE_TOTAL",
    "VAULT_FILE",
    "VOUCHER",
    "moment",
    "stamp",
]

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _table(name: str, columns: str) -> TableClause:
    return table(name, *(column(part) for part in columns.split()))


EPOCH = _table("epoch", "id epoch fence latest quiet_until block_version")
TOKEN = _table("token", "id sha256 role name loan created_at expires_at revoked_at person")
MODEL = _table("model", "digest name manifest signature envelope published_at withdrawn_at")
LOAN = _table("loan", "id borrower terms policy policy_version created_at")
LOAN_MODEL = _table("loan_model", "loan name digest")
CONTRACT = _table("contract", "loan version document created_at agreed_at")
ALLOWANCE = _table("allowance", "loan meter balance")
INSTANCE = _table(
    "instance",
    "id loan pub kem_digest tee tier result policy_digest epoch seq req_digest reply chain_head attested_at "
    "committed_at dead_at status written_off clone_proof clock_trusted clock voucher_until key_epoch device",
)
INSTANCE_METER = _table("instance_meter", "instance meter ceiling used filed reach")
VOUCHER = _table("voucher", "instance seq req_digest digest reply issued_at")
CONSUMPTION = _table("consumption", "instance statement at")
TICKET = _table("ticket", "instance idx req_digest reply units")
NONCE = _table("nonce", "value loan expires_at used_at")
LEDGER = _table("ledger", "id at loan meter debit credit units")
BLOCK = _table("block", "kind subject loan reason by at")
REQUEST = _table("request", "id loan meter units reason state created_at decided_at decided_by granted answer")
IDEMPOTENCY = _table("idempotency", "actor key digest answer expires_at")
AUDIT = _table("audit", "idx at entry")
ENROLMENT = _table("enrolment", "id device pending expires_at")
DEVICE = _table("device", "id ak_sha256 certificate enrolled_at label maker retired_at reason")
ARTIFACT = _table("artifact", "sha256 data")
KEY_RELEASE = _table("key_release", "id instance at nonce custodian kem_pub evidence devices software policy")
RELEASE_ENDORSEMENT = _table("release_endorsement", "release name sha256")
ENDORSEMENT_BUNDLE = _table("endorsement_bundle", "id version sha256 accepted_at")
LOG_HEAD = _table("log_head", "id size root latest ledger_size escrowed")
AUDIT_PENDING = _table("audit_pending", "id batch")
AUDIT_PRUNED = _table("audit_pruned", "idx leaf pruning")
AUDIT_SECRET = _table("audit_secret", "id wrapped")
AUDIT_SUBJECT = _table("audit_subject", "pseudonym lookup sealed made_at forgotten_at")
AUDIT_OPENING = _table("audit_opening", "commitment sealed")
AUDIT_OPENING_SUBJECT = _table("audit_opening_subject", "commitment pseudonym")
AUDIT_HOLD = _table("audit_hold", "id scope reason placed_at placed_by lifted_at")
COSIGNATURE = _table("cosignature", "witness size at line")
USAGE_REPORT = _table("usage_report", "instance first last earliest latest head received_at statement")
USAGE_TOTAL = _table("usage_total", "instance model consumer units")
USAGE_SUM = _table("usage_sum", "instance first minute model consumer inferences units cut_units")
KEK = _table("kek", "number id wrapped made_at retired_at destroyed_at")
ROTATION = _table("rotation", "id every_s next_at")
RELEASED_KEY = _table("released_key", "id instance model envelope kek_id key_version at")
PERSON = _table("person", "name since")
PROPOSAL = _table(
    "proposal",
    "id operation request body basis digest actor role name person created_at expires_at state decided_at decided_by "
    "reason outcome",
)
AUTHORITY = _table("authority", "number certificate wrapped made_at issues_from ends_at retired_at")
CERTIFICATE = _table("certificate", "fingerprint spki_sha256 name authority issued_at ends_at der vouched_by")
SESSION = _table("session", "id sha256 actor role name loan person key created_at expires_at renew_until ended_at")
ISSUER = _table("issuer", "id document set_at")
ISSUER_KEYS = _table("issuer_keys", "issuer keys")
ISSUER_VERSION = _table("issuer_version", "id version")
FORK_EVIDENCE = _table("fork_evidence", "instance idx first second at")
TENANT = _table("tenant", "name state discoverable created_at changed_at")
ALARM = _table("alarm", "code place since")
PROBE = _table("probe", "id at")
PERMIT_END = _table("permit_end", "proposal ended_at split")
VAULT_FILE = _table("vault_file", "digest noted_at")
START_RULE = _table("start_rule", "id operations spelled")

TABLES = (
    EPOCH, TOKEN, MODEL, LOAN, LOAN_MODEL, ALLOWANCE, INSTANCE, INSTANCE_METER, NONCE, LEDGER, BLOCK, REQUEST,
    IDEMPOTENCY, AUDIT, ENROLMENT, DEVICE, ARTIFACT, KEY_RELEASE, RELEASE_ENDORSEMENT, ENDORSEMENT_BUNDLE,
    LOG_HEAD, AUDIT_PENDING, COSIGNATURE,
    USAGE_REPORT, USAGE_TOTAL, USAGE_SUM, FORK_EVIDENCE, CONTRACT,
    VOUCHER, CONSUMPTION, TICKET,
    KEK, ROTATION, RELEASED_KEY,
    PROPOSAL, PERSON, TENANT, AUTHORITY, CERTIFICATE, SESSION,
    AUDIT_PRUNED, AUDIT_SECRET, AUDIT_SUBJECT, AUDIT_OPENING, AUDIT_OPENING_SUBJECT, AUDIT_HOLD,
    ALARM, PROBE, PERMIT_END, VAULT_FILE, START_RULE,
    ISSUER, ISSUER_KEYS, ISSUER_VERSION,
)  # fmt: skip


def stamp(moment_: datetime) -> int:
    """Return a time as microseconds since 1970, exact and sortable."""
    return (moment_ - _EPOCH_START) // _MICROSECOND


def moment(stamp_: int) -> datetime:
    """Return the time of a stamp."""
    return _EPOCH_START + timedelta(microseconds=stamp_)
