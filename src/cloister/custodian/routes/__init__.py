"""The API as one table (docs/reference/custodian-api.md), a file for each family of routes.

App, OpenAPI document and tests read this one. A new route stands here or does not exist.
"""

from __future__ import annotations

from cloister.custodian.routes.access import ACCESS
from cloister.custodian.routes.blocks import BLOCKS
from cloister.custodian.routes.certificates import CERTIFICATES
from cloister.custodian.routes.compliance import COMPLIANCE
from cloister.custodian.routes.enclaves import ENCLAVES
from cloister.custodian.routes.issuers import ISSUERS
from cloister.custodian.routes.loans import LOANS
from cloister.custodian.routes.looking import LOOKING
from cloister.custodian.routes.models import MODELS
from cloister.custodian.routes.proposals import PROPOSALS
from cloister.custodian.routes.public import PUBLIC
from cloister.custodian.routes.route import ADMIN, MANAGE, STAFF
from cloister.custodian.routes.sessions import SESSIONS

__all__ = ["ADMIN", "MANAGE", "ROUTES", "STAFF"]

ROUTES = (
    *PUBLIC, *ENCLAVES, *LOANS, *MODELS, *BLOCKS, *LOOKING, *COMPLIANCE, *ACCESS, *PROPOSALS, *CERTIFICATES, *SESSIONS,
    *ISSUERS,
)  # fmt: skip
"""Every route there is."""
