"""The audit log: pages of entries, and one entry with what proves that it stands where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import logbook, transparency
from cloister.errors import Rejected
from cloister.lending.tlog.checkpoint import log_key
from cloister.lending.tlog.proof import verify_log_proof
from cloister.lending.tlog.text import parse_number
from cloister.pages import PAGE_HEADERS, NavEntry
from cloister.wire import dump_json, parse_json

if TYPE_CHECKING:
    from cloister.custodian.dashboard.visit import Visit
    from cloister.lending.tlog.proof import LogProof

__all__ = ["PAGES", "TABS"]

_ROWS = 50
_PROOF = "GET /v1/audit/{index}/proof"


def entry_list(visit: Visit) -> Response:
    """Show some entries, newest first; ``before`` is the number of the entry above those that are shown."""
    context = visit.desk.service.context
    wanted = visit.rows_before("before")
    before = min(wanted, context.size) if wanted else context.size
    query = {"after": str(max(before - _ROWS, 0) - 1), "limit": str(_ROWS)}
    found = visit.ask("GET /v1/audit", query=query)
    entries = [item for item in found["entries"] if item["index"] < before]
    return visit.page(
        "audit.html",
        here="/audit",
        before=before,
        entries=[_row(item) for item in reversed(entries)],
        checkpoint=context.checkpoint(),
        rows=_ROWS,
        size=found["size"],
    )


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a line of the list shows of an entry; of one that was pruned, that it was there."""
    if "pruned" in entry:
        return {"index": entry["index"], "pruned": True}
    return {**entry, "details": _details(entry), "pruned": False}


def _details(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the details of an entry as they are logged; of a committed one the commitment."""
    shown = {name: _text(value) for name, value in entry["details"].items()}
    shown |= {name: f"committed {digest[:12]}…" for name, digest in entry.get("committed", {}).items()}
    return sorted(shown.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value).decode()


def entry(visit: Visit) -> Response:
    """Show one entry with its proof, which is made and checked here, and can be taken away to be checked elsewhere."""
    index, proof = _proof(visit)
    line = proof.extra or b""
    own = log_key(visit.desk.service.key)
    verified = verify_log_proof(proof, line, own, witnesses=(), quorum=0)
    read: Any = parse_json(line, what="audit entry")
    return visit.page(
        "entry.html",
        here="/audit",
        entry=_row(read),
        index=index,
        line=line.decode(),
        log=own.name,
        path=[part.hex() for part in proof.path],
        proof=proof.dump().decode(),
        root=verified.root.hex(),
        size=verified.size,
    )


def entry_proof(visit: Visit) -> Response:
    """Give the proof as a file."""
    index, proof = _proof(visit)
    headers = {**PAGE_HEADERS, "content-disposition": f'attachment; filename="entry-{index}.tlog-proof"'}
    return Response(proof.dump(), media_type="text/plain", headers=headers)


def _proof(visit: Visit) -> tuple[int, LogProof]:
    """Return an entry's number and its proof, for whom the API would give it to. Raises ``Rejected``."""
    index = parse_number(str(visit.request.path_params["index"]), what="entry")
    visit.demand(_PROOF, index=str(index))
    context = visit.desk.service.context
    if logbook.line_at(context, index) is None:
        raise Rejected.because("not_found", "entry")
    return index, transparency.entry_proof(context, visit.actor, index, size=None, quorum=0)


TABS = (Tab(entry=NavEntry(path="/audit", title="Audit log", keys="g a"), route="GET /v1/audit"),)
PAGES = (
    Page(path="/audit", work=entry_list),
    Page(path="/audit/{index}", work=entry),
    Page(path="/audit/{index}/proof", work=entry_proof),
)
