"""The custodian's server: store, vault, use cases, HTTP."""
