"""`python -m woolly`."""

from woolly.cli import main

main()
