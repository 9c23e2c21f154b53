"""`python -m wildmerge.cli` is the command `wildmerge`."""

from wildmerge.cli.main import run

run()
