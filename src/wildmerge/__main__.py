"""`python -m wildmerge` is the command `wildmerge`."""

from wildmerge.cli.main import run

run()
