"""The log in the formats of others: held to their schemas, escaped, complete, every byte the log's (T83, T84)."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from exports_kit import AT, HOSTILE, KEY, every_event, exported, pruned
from google.protobuf import json_format
from journal_kit import harmless
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from cloister.errors import CloisterError, Malformed, Rejected
from cloister.lending.audit import AuditEntry, line_leaf
from cloister.lending.exports import FORMATS, Manifest, verify_export
from cloister.lending.exports.cef import escape_header, escape_value
from cloister.lending.exports.ocsf import OCSF_VERSION
from cloister.lending.frontier import Frontier
from cloister.lending.merkle import MerkleTree, leaf_hash
from cloister.lending.tlog.checkpoint import log_key
from mutations import mutated

LOG = every_event()
LINES = [*LOG, *[line for at, line in enumerate(pruned(LOG, 0)) if at == 0]]
NAMES = sorted(FORMATS)
KEYED = log_key(KEY.verify_key)
MILLIS = int(AT.timestamp() * 1000)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_line_comes_back_out_of_every_record(name: str) -> None:
    for line in LINES:
        record = FORMATS[name].dump(line)
        assert FORMATS[name].take(record) == line
        assert b"\n" not in record


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"jsonl"}))
def test_t84_a_record_is_ascii_and_steers_nothing(name: str) -> None:
    """Item 66: what a line of free text could hold is an escape, whoever reads the file."""
    assert any(HOSTILE.encode() in line or "\u202e".encode() in line for line in LOG)
    for line in LINES:
        record = FORMATS[name].dump(line).decode("ascii")
        assert harmless(record)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_record_raises_one_error(name: str) -> None:
    whole = FORMATS[name].dump(LOG[3])
    for bad in mutated(whole, count=400, seed=3):
        try:
            line = FORMATS[name].take(bad)
            if name != "jsonl":
                FORMATS[name].dump(line)
        except (Malformed, Rejected):
            continue


# OCSF: the published schema, as JSON Schema 2020-12


@pytest.fixture(scope="module")
def ocsf() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))


def test_every_event_is_valid_by_the_published_schema(ocsf: OcsfJsonSchemaEmbedded) -> None:
    validators: dict[int, Any] = {}
    seen = set()
    for line in LINES:
        event = json.loads(FORMATS["ocsf"].dump(line))
        uid = event["class_uid"]
        if uid not in validators:
            schema = ocsf.get_class_schema(class_name=ocsf.lookup_class_name_from_uid(uid), profiles=[])
            validators[uid] = jsonschema.Draft202012Validator(schema)
        errors = [error.message for error in validators[uid].iter_errors(event)]
        assert errors == [], (event["metadata"]["event_code"], errors)
        assert event["type_uid"] == uid * 100 + event["activity_id"]
        assert event["metadata"]["version"] == OCSF_VERSION
        seen.add(uid)
    assert seen == {0, 2004, 3001, 3004, 3005, 6002, 6003}


def test_the_schema_bites(ocsf: OcsfJsonSchemaEmbedded) -> None:
    """A check that refuses nothing proves nothing."""
    event = json.loads(FORMATS["ocsf"].dump(LOG[0]))
    schema = ocsf.get_class_schema(class_name=ocsf.lookup_class_name_from_uid(event["class_uid"]), profiles=[])
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(event)) == []
    for wrong in ({"made_up": 1}, {"severity_id": 77}, {"time": "now"}, {"metadata": {}}):
        assert list(validator.iter_errors({**event, **wrong}))


# OTLP: the published protobuf


def test_every_document_is_logs_data_by_the_published_protobuf() -> None:
    for line in LOG:
        data = json_format.Parse(FORMATS["otel"].dump(line), LogsData())
        (record,) = data.resource_logs[0].scope_logs[0].log_records
        entry = AuditEntry.parse(line)
        assert record.event_name == f"cloister.audit.{entry.kind.value}"
        assert record.time_unix_nano // 1_000_000 == int(entry.at.timestamp() * 1000)
        attributes = {item.key: item.value for item in record.attributes}
        assert attributes["audit.index"].int_value == entry.index
        assert attributes["audit.leaf"].string_value == entry.leaf.hex()
        for name, value in entry.details.items():
            found = attributes[f"audit.detail.{name}"]
            assert getattr(found, found.WhichOneof("value")) == value
            assert type(getattr(found, found.WhichOneof("value"))) is type(value)


# CEF: a strict reader of ours, written from the standard


def parse_cef(record: str) -> tuple[list[str], dict[str, str]]:
    """Return header and extension. Demands that every backslash escapes what may be escaped."""
    header, rest = [], record
    for _ in range(7):
        found = re.match(r"((?:[^\\|\r\n]|\\[\\|])*)\|", rest)
        assert found, rest[:60]
        header.append(re.sub(r"\\([\\|])", r"\1", found.group(1)))
        rest = rest[found.end() :]
    extension = {}
    while rest:
        found = re.match(r"([A-Za-z0-9_]+)=((?:[^\\=\r\n]|\\[\\=nr])*)(?: (?=[A-Za-z0-9_]+=)|$)", rest)
        assert found, rest[:60]
        value = re.sub(r"\\(.)", lambda item: {"n": "\n", "r": "\r"}.get(item.group(1), item.group(1)), found.group(2))
        extension[found.group(1)] = value
        rest = rest[found.end() :]
    return header, extension


def test_every_record_is_cef() -> None:
    for line in LOG:
        entry = AuditEntry.parse(line)
        header, extension = parse_cef(FORMATS["cef"].dump(line).decode())
        assert header[:5] == ["CEF:0", "Cloister", "custodian", "2", entry.kind.value]
        assert 0 <= int(header[6]) <= 10
        assert (extension["externalId"], extension["suser"]) == (str(entry.index), entry.actor)
        assert extension["cs2"] == entry.leaf.hex()
        shown = json.loads(extension["cs3"])
        assert {name: shown[name] for name in entry.details} == dict(entry.details)
        assert json.loads(extension["rawEvent"]) == json.loads(line)
    assert parse_cef(FORMATS["cef"].dump(LOG[0]).decode())[1]["rt"] == str(MILLIS)


@pytest.mark.parametrize(
    "text", ["", "|", "\\", "\\|", "a=b", "\\=", "\n", "\r\n", "a\\nb", "x rawEvent=y", "|=\\" * 9]
)
def test_cef_escapes_what_its_standard_says(text: str) -> None:
    header, extension = parse_cef(f"{escape_header(text)}|" + "x|" * 6 + f"k={escape_value(text)}")
    assert header[0] == re.sub(r"[\r\n]", " ", text)
    assert extension == {"k": text}


# Completeness: the manifest


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [0, 1, 7, 64, len(LOG) - 1, len(LOG)])
def test_an_export_is_proven_whole_from_wherever_it_starts(name: str, first: int) -> None:
    records, manifest = exported(LOG, name, first=first)
    assert Manifest.parse(manifest.dump()) == manifest
    found = verify_export(records, manifest, KEYED)
    assert (found.first, found.size, found.pruned) == (first, len(LOG), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_log_exports_and_verifies(name: str) -> None:
    records, manifest = exported(pruned(LOG, 3, 9), name)
    assert verify_export(records, manifest, KEYED).pruned == 2


@pytest.mark.parametrize("name", NAMES)
def test_t83_any_record_removed_repeated_moved_or_put_in_is_found(name: str) -> None:
    records, manifest = exported(LOG[:12], name, first=5)
    for at in range(len(records)):
        swapped = list(records)
        swapped[at], swapped[at - 1] = swapped[at - 1], swapped[at]
        for bent in (records[:at] + records[at + 1 :], records[: at + 1] + records[at:], swapped):
            with pytest.raises(CloisterError):
                verify_export(bent, manifest, KEYED)


@pytest.mark.parametrize("name", NAMES)
def test_t83_any_altered_byte_of_an_export_is_found(name: str) -> None:
    """Also in what a format adds around the entry: a record is made in one way only."""
    records, manifest = exported(LOG[:3], name, first=2)  # a bare entry: its details are where the bytes are many
    data = b"".join(records)
    rng = random.Random(13)
    for at in range(len(data)):
        bent = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
        with pytest.raises(CloisterError):
            verify_export(bent.splitlines(keepends=True), manifest, KEYED)


def test_t83_any_altered_byte_of_a_manifest_is_found() -> None:
    records, manifest = exported(LOG[:6], "jsonl", first=3)
    whole = manifest.dump()
    for at in range(len(whole)):
        bent = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(CloisterError):
            verify_export(records, Manifest.parse(bent), KEYED)


def test_an_export_of_another_custodian_is_refused() -> None:
    from cloister.crypto.sign import SigningKey  # noqa: PLC0415

    records, manifest = exported(LOG[:6], "ocsf")
    with pytest.raises(Rejected):
        verify_export(records, manifest, log_key(SigningKey(bytes(32)).verify_key))


def test_a_frontier_is_the_tree_at_every_size() -> None:
    frontier, tree = Frontier(), MerkleTree()
    for number in range(300):
        assert (frontier.size, frontier.root()) == (tree.size, tree.root())
        assert Frontier.of(frontier.size, frontier.peaks) == frontier
        leaf = leaf_hash(number.to_bytes(4, "big"))
        frontier = frontier.add(leaf)
        tree.append_hash(leaf)
    for peaks in (frontier.peaks[1:], (*frontier.peaks, bytes(32))):
        with pytest.raises(Malformed):
            Frontier.of(frontier.size, peaks)


def test_every_line_has_its_hash_in_every_format() -> None:
    for line in LINES:
        for name in set(NAMES) - {"jsonl"}:
            assert line_leaf(line).hex().encode() in FORMATS[name].dump(line)
