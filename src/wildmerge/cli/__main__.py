"""`python -m wildmerge.cli` is the command `wildmerge`, and so is `python -m wildmerge`."""

from wildmerge.cli.main import run

run()
