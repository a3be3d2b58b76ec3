"""The enclave's resources for an ASGI server; ``serve`` has a listener of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.enclave.outer import Outer
from cloister.enclave.web.asgi import AsgiApplication

if TYPE_CHECKING:
    from cloister.enclave.instance import EnclaveInstance

__all__ = ["create_app"]


def create_app(instance: EnclaveInstance) -> AsgiApplication:
    """Return the application of one instance."""
    return AsgiApplication(Outer(instance), instance.admission.limits)
