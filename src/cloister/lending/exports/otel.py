"""OpenTelemetry logs: OTLP/JSON, one ``LogsData`` a line (OTLP file exporter; opentelemetry-proto, logs/v1).

Integers of 64 bits are strings, as proto3 JSON has them. The body is the entry; index and leaf hash are attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.lending.exports.form import MAX_RECORD_BYTES, Shown, ascii_json, ascii_line, canonical_line, milliseconds
from cloister.wire import Fields

if TYPE_CHECKING:
    from cloister.lending.events import DetailValue
    from cloister.wire import Json

__all__ = ["Otel"]

_SEVERITY = ((9, "INFO"), (13, "WARN"), (17, "ERROR"))
_NANO = 1_000_000  # nanoseconds of a millisecond


class Otel:
    """OTLP/JSON, one document a line."""

    def dump(self, line: bytes) -> bytes:
        """Return the document of a line of the log."""
        shown = Shown.of(line)
        number, text = _SEVERITY[shown.weight.level]
        named = {
            "audit.actor": shown.actor, "audit.index": shown.index, "audit.leaf": shown.leaf.hex(),
            "audit.retention": shown.kept, "audit.subject": shown.subject,
            **{f"audit.detail.{name}": value for name, value in sorted(shown.details.items())},
        }  # fmt: skip
        record: Json = {
            "attributes": [{"key": key, "value": _value(value)} for key, value in named.items()],
            "body": {"stringValue": ascii_line(line)},
            "eventName": f"cloister.audit.{shown.kind}",
            "severityNumber": number,
            "severityText": text,
            "timeUnixNano": str(milliseconds(shown.at) * _NANO),
        }
        service: Json = {"attributes": [{"key": "service.name", "value": _value("cloister-custodian")}]}
        scope: Json = {"logRecords": [record], "scope": {"name": "cloister.audit", "version": "2"}}
        return ascii_json({"resourceLogs": [{"resource": service, "scopeLogs": [scope]}]}).encode()

    def take(self, record: bytes) -> bytes:
        """Return the line of a document."""
        resources = Fields.parse(record, what="otlp logs", cap=MAX_RECORD_BYTES).items("resourceLogs", cap=1)
        scopes = _only(resources).items("scopeLogs", cap=1)
        records = _only(scopes).items("logRecords", cap=1)
        raw = _only(records).fields("body").take("stringValue")
        if not isinstance(raw, str):
            raise Malformed("otlp logs: body: want a string")
        return canonical_line(raw)


def _only(items: list[Json]) -> Fields:
    if len(items) != 1:
        raise Malformed("otlp logs: want one record in a document")
    return Fields(items[0], what="otlp logs")


def _value(value: DetailValue) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
