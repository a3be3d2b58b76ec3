"""A loan as borrower and consumers hold it, and the sealed models that are lent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloister.custodian.publication import publication
from cloister.custodian.vaults import envelope_of
from cloister.sealed.directory import read_package
from cloister.sealed.seal import seal_model
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.lending.terms import LoanId
    from cloister.testing.simulator.custodian import SimulatedCustodian
    from cloister.testing.simulator.world import World

__all__ = ["SealedToy", "SimulatedLoan", "publish", "seal", "take_loan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedToy:
    """A sealed model: ``folder`` is the package that anybody may have, ``dek`` the secret that opens it."""

    name: str
    digest: str
    folder: Path
    dek: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLoan:
    """One loan. ``file`` is the borrower's loan file, ``tokens`` the consumers' tokens by their ids."""

    custodian: SimulatedCustodian = field(repr=False)
    id: LoanId
    file: Path
    token: str = field(repr=False)
    tokens: Mapping[str, str] = field(repr=False)
    models: Mapping[str, SealedToy]
    operator: str

    # what staff does

    def top_up(self, units: int, meter: str = "loan", *, once: str = "") -> int:
        """Add units; returns the balance. ``once`` is an Idempotency-Key."""
        headers = {"idempotency_key": once} if once else {}
        path = f"/v1/loans/{self.id}/top-up"
        answer = self.custodian.call("POST", path, {"units": units, "meter": meter}, **headers)
        return int(answer.demand()["balance"])

    def set(self, units: int, meter: str = "loan") -> int:
        """Set what the allowance still holds; returns the balance."""
        body: Json = {"units": units, "meter": meter}
        return int(self.custodian.call("POST", f"/v1/loans/{self.id}/set", body).demand()["balance"])

    def approve(self, ask: str, **body: Json) -> Any:
        """Approve a request for more."""
        return self.custodian.call("POST", f"/v1/loans/{self.id}/requests/{ask}/approve", body).demand()

    def deny(self, ask: str, **body: Json) -> Any:
        """Deny a request for more."""
        return self.custodian.call("POST", f"/v1/loans/{self.id}/requests/{ask}/deny", body).demand()

    def show(self) -> Any:
        """Return the loan as staff sees it."""
        return self.custodian.call("GET", f"/v1/loans/{self.id}").demand()

    def meter(self, name: str = "loan") -> Mapping[str, int]:
        """Return where every unit is: ``granted == balance + held + spent + written_off``."""
        meter: Mapping[str, int] = self.show()["meters"][name]
        return meter

    # what the borrower does

    def ask_more(self, units: int, reason: str = "") -> str:
        """Ask for more; returns the id of the request."""
        body: Json = {"units": units, "reason": reason}
        return str(self.as_borrower("POST", f"/v1/loans/{self.id}/requests", body)["id"])

    def summary(self) -> Any:
        """Return the loan as its borrower sees it."""
        return self.as_borrower("GET", f"/v1/loans/{self.id}/summary")

    def as_borrower(self, method: str, path: str, body: Json = None) -> Any:
        """Call the API with the borrower's token. Raises ``Rejected``."""
        return self.custodian.call(method, path, body, token=self.token, source="borrower").demand()


def seal(world: World, custodian: SimulatedCustodian, name: str, files: Mapping[str, bytes]) -> SealedToy:
    """Seal ``files`` on the custodian's machine; the plain copy is gone afterwards."""
    stem = f"{name}-{world.chance.randbytes(4).hex()}"
    plain, out = world.folder / f"{stem}.plain", world.folder / f"{stem}.sealed"
    plain.mkdir()
    for path, data in files.items():
        (plain / path).write_bytes(data)
    dek = world.chance.randbytes(32)
    card: Json = {"task": "toy", "description": "rows times a factor"}
    key = custodian.vault.publisher_key
    sealed = seal_model(plain, out, name=name, dek=dek, signer=key, card=card, created=world.time.now)
    for path in files:
        (plain / path).unlink()
    plain.rmdir()
    return SealedToy(name=name, digest=sealed.digest, folder=out, dek=dek)


def publish(custodian: SimulatedCustodian, model: SealedToy) -> None:
    """Publish a sealed model."""
    envelope = envelope_of(custodian.vault, model.dek, model.digest)
    custodian.call("POST", "/v1/models", publication(read_package(model.folder), envelope)).demand()


def take_loan(
    world: World, custodian: SimulatedCustodian, body: Json, models: Mapping[str, SealedToy], operator: str
) -> SimulatedLoan:
    """Make the loan of ``body`` and write its loan file."""
    made = custodian.call("POST", "/v1/loans", body).demand()
    path = world.folder / f"{made['loan']}.json"
    path.touch(mode=0o600)
    path.write_bytes(dump_json(made["loan_file"]))
    return SimulatedLoan(
        custodian=custodian,
        id=made["loan"],
        file=path,
        token=made["loan_file"]["token"],
        tokens=made["consumer_tokens"],
        models=dict(models),
        operator=operator,
    )
