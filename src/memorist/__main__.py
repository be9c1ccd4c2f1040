"""`python -m memorist`."""

from memorist.cli import main

main()
