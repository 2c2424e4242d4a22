"""`python -m bench`: the command line without an installed script."""

from bench.cli import main

main()
