"""`python -m folio` is the command `folio`."""

from folio.cli.main import command

command()
