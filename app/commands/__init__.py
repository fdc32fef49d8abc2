"""One module per command of `errata`, imported only when that command is called.

A module here exposes `app`, a `typer.Typer` with exactly one command. `app/cli.py` names the
module and its one-line help; nothing else needs to change to add a command.
"""
