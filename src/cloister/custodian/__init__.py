"""The custodian's server: who owns and lends models.

``config`` has the settings, ``store`` the one database, ``vaults`` keys at rest, ``service`` the use
cases, ``app`` the HTTP face, ``setup`` makes and opens a custodian's home, ``serve`` runs it.

Not done here: verifying evidence (``attest``), deciding leases (``lending``), encryption (``crypto``).
"""
