"""A borrower's page: its loan, what is left, who uses it, how its enclave stands, and a form to ask for more.

``loan`` is what the custodian says of the loan, ``books`` asks it, ``host`` is what the enclave on this host says to
its operator, ``app`` the routes, ``serve`` runs it. The borrower's token stays in this server. It shows what the
custodian's API shows a borrower and what the enclave shows its operator, and knows nothing more: no question, no
answer, no weight.
"""
