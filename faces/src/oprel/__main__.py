"""`python -m oprel`."""

from oprel.cli import main

main()
