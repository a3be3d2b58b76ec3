"""Several tenants in one process: each a whole custodian of its own, in front of all of them one host.

A tenant has its own database, vault and keys, audit log and checkpoint, settings, tokens, policies. None of its code
knows of tenants. Isolation stands in one place: ``host.Host`` picks the tenant that a path names, and what runs for
the request holds that tenant's ``CustodianService`` and no other (docs/reference/tenants.md, ADR 0044).

``config`` the host's settings, ``names`` and ``unlocking`` what a tenant is called and how its vault opens,
``running`` a tenant that is served, ``admission`` what it may take of the process, ``stranger`` who answers for
tenants that are not there, ``beside`` what a tenant is served with beside its API, ``roster`` which there are and how
each is, ``keeping`` what an operator does, ``erasing`` the end of a tenant, ``figures`` what an operator sees,
``operator_http`` the operator's API, ``setup`` making and opening a host. Not done here: sockets and TLS (``serve``).
"""
