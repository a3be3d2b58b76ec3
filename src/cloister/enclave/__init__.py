"""The borrower's server inside the TEE: the code that is measured."""
