"""OCSF 1.6.0 (schema.ocsf.io): each entry as an event of the class that fits, the rest under ``unmapped``.

| class | entries |
|---|---|
| 2004 Detection Finding | forks, overdrafts, clocks, refused evidence, stuck envelopes, recalls |
| 3001 Account Change | tokens |
| 3004 Entity Management | models, loans, terms, units, blocks, keys, holds, pruning, forgetting |
| 3005 User Access Management | consumers |
| 6002 Application Lifecycle | the custodian's starts and stops |
| 6003 API Activity | everything else |
| 0 Base Event | what is left of a pruned entry; its time is not known and stands as 0 |

``metadata.uid`` is the leaf hash, ``metadata.sequence`` the index, ``raw_data`` the entry. The log knows no addresses
of callers: the required ``src_endpoint`` names the actor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.lending.exports.form import MAX_RECORD_BYTES, Shown, ascii_json, ascii_line, canonical_line, milliseconds
from cloister.wire import Fields, dump_time

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["OCSF_VERSION", "Ocsf"]

OCSF_VERSION = "1.6.0"
_FINDING, _ACCOUNT, _ENTITY, _ACCESS, _LIFECYCLE, _API = 2004, 3001, 3004, 3005, 6002, 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_ENABLE, _DISABLE = 8, 9
_SEVERITY = (1, 3, 4)  # informational, medium, high
_SUCCESS, _FAILURE = 1, 2

_CLASSES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        (
            "fork_detected", "overdraft_detected", "clock_anomaly", "attestation_refused", "device_refused",
            "envelope_stuck", "recalled",
        ),
        (_FINDING, _CREATE),
    ),
    "token_created": (_ACCOUNT, 1),
    "token_revoked": (_ACCOUNT, 5),
    **dict.fromkeys(
        ("model_published", "loan_created", "contract_offered", "hold_placed", "device_enrolled"), (_ENTITY, _CREATE)
    ),
    **dict.fromkeys(
        (
            "terms_changed", "contract_signed", "policy_changed", "allowance_added", "allowance_set",
            "allowance_written_off", "keys_rotated", "envelope_moved", "rotation_scheduled", "endorsements_accepted",
        ),
        (_ENTITY, _UPDATE),
    ),
    **dict.fromkeys(
        ("model_withdrawn", "key_destroyed", "log_pruned", "subject_forgotten", "hold_lifted"), (_ENTITY, _DELETE)
    ),
    "blocked": (_ENTITY, _DISABLE),
    "unblocked": (_ENTITY, _ENABLE),
    "consumer_added": (_ACCESS, 1),
    "custodian_initialised": (_LIFECYCLE, 1),
    "custodian_started": (_LIFECYCLE, 3),
    "custodian_stopped": (_LIFECYCLE, 4),
    "custodian_recovered": (_LIFECYCLE, 5),
    "key_released": (_API, _READ),
    "pruned": (0, _OTHER),
}  # fmt: skip


class Ocsf:
    """OCSF as JSON, one event a line."""

    def dump(self, line: bytes) -> bytes:
        """Return the event of a line of the log."""
        shown = Shown.of(line)
        found, activity = _CLASSES.get(shown.kind, (_API, _OTHER))
        return ascii_json(
            {
                **_about(found, shown),
                "activity_id": activity,
                "category_uid": found // 1000,
                "class_uid": found,
                "metadata": _metadata(shown),
                "raw_data": ascii_line(line),
                "severity_id": _SEVERITY[shown.weight.level],
                "status_id": _FAILURE if shown.weight.failed else _SUCCESS,
                "time": milliseconds(shown.at),
                "type_uid": found * 100 + activity,
                "unmapped": {**shown.details, "actor": shown.actor, "subject": shown.subject},
            }
        ).encode()

    def take(self, record: bytes) -> bytes:
        """Return the line of an event."""
        event = Fields.parse(record, what="ocsf event", cap=MAX_RECORD_BYTES)
        raw = event.take("raw_data")
        if not isinstance(raw, str):
            raise Malformed("ocsf event: raw_data: want a string")
        return canonical_line(raw)


def _metadata(shown: Shown) -> Json:
    return {
        "event_code": shown.kind,
        "labels": [f"retention:{shown.kept}"],
        "log_name": "audit",
        "original_time": dump_time(shown.at),
        "product": {"name": "Cloister custodian", "vendor_name": "Cloister"},
        "sequence": shown.index,
        "uid": shown.leaf.hex(),
        "version": OCSF_VERSION,
    }


def _about(found: int, shown: Shown) -> dict[str, Json]:
    """Return the members that a class demands."""
    actor: Json = {"user": {"uid": shown.actor}}
    consumer = str(shown.details.get("consumer", "none"))
    members: dict[int, dict[str, Json]] = {
        _FINDING: {"finding_info": {"title": shown.kind, "uid": shown.leaf.hex()}},
        _ACCOUNT: {"actor": actor, "user": {"uid": shown.subject}},
        _ENTITY: {"actor": actor, "entity": {"uid": shown.subject}},
        _ACCESS: {"actor": actor, "privileges": ["infer"], "user": {"uid": consumer}},
        _LIFECYCLE: {"app": {"name": "Cloister custodian", "vendor_name": "Cloister"}},
        _API: {"actor": actor, "api": {"operation": shown.kind}, "src_endpoint": {"uid": shown.actor}},
    }
    return members.get(found, {})
