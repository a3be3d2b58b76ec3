"""``python -m cloister``."""

from cloister.cli import main

main()
