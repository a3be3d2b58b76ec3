"""What an enclave says of a model, and the contract it serves under."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.words import OUTCOMES
from cloister.client.notebook.box import box, details, facts, short, table
from cloister.client.notebook.receipts import units_text
from cloister.wire import dump_time
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.client.contract import AgreedContract
    from cloister.client.model_info import ModelInfo

__all__ = ["contract_html", "model_html"]


def model_html(info: ModelInfo) -> Html:
    """Return inputs, outputs, how inputs are made, and what is left of the allowance."""
    tensors = [("input", str(tensor), _made(info, tensor.name)) for tensor in info.inputs]
    tensors += [("output", str(tensor), _classes(info, tensor.name)) for tensor in info.outputs]
    return box(
        f"Model {info.name}",
        tag("p", info.description) if info.description else "",
        table(("", "name, type, shape", ""), tensors),
        facts(_about(info)),
    )


def _about(info: ModelInfo) -> Iterator[tuple[str, str]]:
    if info.task:
        yield "task", info.task
    yield "sealed as", short(info.digest)
    if info.maker is None:
        yield "made by", "its maker signed nothing"
    else:
        yield "made by", joined(f"{info.maker.signer} ({info.maker.kind} ", short(info.maker.fingerprint), "), proven")
    left = "nobody counts here" if info.remaining is None else f"{units_text(info.remaining)}, as far as it knows"
    yield "remaining", left


def _made(info: ModelInfo, name: str) -> str:
    if name in info.images:
        spec = info.images[name]
        return f"from an image: {spec.size[0]}x{spec.size[1]} {spec.mode}, values {spec.low:g} to {spec.high:g}"
    if name in info.columns:
        return f"from the columns {', '.join(info.columns[name])}"
    return ""


def _classes(info: ModelInfo, name: str) -> str:
    names = info.labels.get(name, ())
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""  # noqa: PLR2004 - as many as are read at a glance
    return f"classes {', '.join(names[:10])}{more}" if names else ""


def contract_html(agreed: AgreedContract) -> Html:
    """Return whose contract it is, and every comparison that was made."""
    terms = agreed.contract.terms
    consumers = "anybody who reaches the enclave" if agreed.consumers is None else ", ".join(agreed.consumers)
    rate = f"{terms.rate_cap:,} units a second and instance" if terms.rate_cap else "no cap"
    checks = ((check.subject, OUTCOMES[check.verdict], short(check.got), short(check.want)) for check in agreed.checks)
    return box(
        f"Contract of loan {terms.loan}: both signatures verified"
        if terms.clauses.borrower is not None
        else f"Contract of loan {terms.loan}: the custodian's signature verified",
        facts(
            (
                ("custodian's key", short(agreed.contract.custodian.key_id)),
                ("borrower", terms.borrower),
                *(("model", joined(f"{model.name}, sealed as ", short(model.digest))) for model in terms.models),
                ("who may ask now", consumers or "nobody by name"),
                ("purpose", terms.clauses.purpose or "none named"),
                ("rate", rate),
                ("version", f"{agreed.contract.version} of {dump_time(agreed.contract.created_at)}"),
            )
        ),
        details("All comparisons", table(("check", "outcome", "got", "want"), checks)),
    )
