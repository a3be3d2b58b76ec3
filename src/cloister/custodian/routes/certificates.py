"""Certificates: for attested instances, for holders of tokens, and the authorities behind them."""

from __future__ import annotations

from cloister.custodian import certificates_http
from cloister.custodian.calls import ANYBODY, STATEMENT_TYPE, Again, Body, Wanted
from cloister.custodian.routes.route import ADMIN, STAFF, WATCHERS, route

__all__ = ["CERTIFICATES"]

CERTIFICATES = (
    # Signed by the instance key inside; who has no certificate yet, or none any more, asks here.
    route(
        "POST", "/v1/instances/{instance}/certificate", ANYBODY, certificates_http.certify_instance, again=Again.SIGNED,
        body=Body.STATEMENT, answers=STATEMENT_TYPE,
    ),
    route(
        "POST", "/v1/certificates", WATCHERS, certificates_http.issue, again=Again.SINGLE, body=Body.JSON, limited=True,
        members=certificates_http.HOST_MEMBERS, wanted=Wanted.NOTHING,
    ),
    # Opened by the certificate that the connection shows, and by nothing else.
    route(
        "POST", "/v1/certificates/renewal", ANYBODY, certificates_http.renew_certificate, body=Body.JSON, limited=True,
        again=Again.SINGLE,
        members=certificates_http.RENEWAL_MEMBERS, wanted=Wanted.HOST,
    ),
    route("GET", "/v1/certificates", STAFF, certificates_http.list_certificates),
    route("GET", "/v1/certificates/authorities", ANYBODY, certificates_http.authorities),
    route(
        "POST", "/v1/certificates/authorities", ADMIN, certificates_http.replace_authorities, body=Body.JSON,
        again=Again.KEYED,
    ),
)  # fmt: skip
