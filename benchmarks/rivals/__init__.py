"""Servers of others, each a small script that runs in an environment of its own and does the work that ours does."""
