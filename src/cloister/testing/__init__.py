"""The shipped test kit: a simulated TEE and all three parties in one process. Never in the production table."""
