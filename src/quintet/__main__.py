"""`python -m quintet` is the `quintet` command."""

from quintet.cli.app import main

main()
