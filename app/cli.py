"""`errata`: the command line. Each command's module is imported only when it is called.

`errata sample` and `errata --help` answer at once because nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import typer

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("app.commands.serve", "Serve the model and its edits over HTTP."),
    "ask": ("app.commands.ask", "Ask a running server a question about a picture."),
    "edit": ("app.commands.edit", "Correct a running server's answer to a question."),
    "edits": ("app.commands.edits", "List edits, or show one with its history."),
    "rollback": ("app.commands.switching:rollback_app", "Take one edit back."),
    "reinstate": ("app.commands.switching:reinstate_app", "Put one edit back."),
    "restore": ("app.commands.switching:restore_app", "Return to the edits of an earlier version."),
    "explain": ("app.commands.explain", "Show which edits a question meets, and why each acts."),
    "scope": ("app.commands.scope", "Change which questions an edit answers, by example."),
    "attribute": ("app.commands.attribute", "Show which layers make an answer, and from where."),
    "calibrate": ("app.commands.calibrate", "Set the router's thresholds anew; edits stay valid."),
    "reencode": ("app.commands.reencode", "Make stale edits anew with the weights there are now."),
    "feedback": ("app.commands.feedback", "Report answers; list and close what was reported."),
    "export": ("app.commands.export", "Write edits and their pictures into one file."),
    "import": ("app.commands.importing", "Make the edits of such a file on another server."),
    "mcp": ("app.commands.mcp", "Let agents ask and correct, by the Model Context Protocol."),
    "keys": ("app.commands.keys", "Make, list and revoke the API keys of a running server."),
    "doctor": ("app.commands.doctor", "Check a data directory: schema, history, stored bytes."),
    "sample": ("app.commands.sample", "Draw emblems of the embedded world, with their questions."),
    "train": ("app.commands.train", "Train an editor or the router on a backbone."),
    "train-default": ("app.commands.train_default", "Train the embedded model from nothing."),
    "train-questions": (
        "app.commands.train_questions",
        "Train the encoder that tells questions apart.",
    ),
    "train-eyes": (
        "app.commands.train_eyes",
        "Train the eyes that tell other pictures than emblems apart.",
    ),
    "version": ("app.commands.version", "Print what is installed, or what a server runs."),
    "bench": ("app.commands.bench", "Measure editors side by side, after one edit and thousands."),
    "eval-default": ("app.commands.eval_default", "Measure the embedded model against its marks."),
}
"""Command name -> module that holds it as `app`, or as what is named, and its one-line help."""

app = typer.Typer(
    name="errata",
    no_args_is_help=True,
    add_completion=False,
    help="A vision-language model that can be corrected while it runs.",
)


def _forward_to(module: str) -> Callable[[typer.Context], None]:
    """A stand-in that imports the real command when called and hands it every argument."""

    def run(context: typer.Context) -> None:
        name, _, attribute = module.partition(":")
        command = typer.main.get_command(getattr(importlib.import_module(name), attribute or "app"))
        command(args=list(context.args), prog_name=context.command_path)

    return run


for _name, (_module, _help) in COMMANDS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_forward_to(_module))


def main() -> None:
    """Entry point of the `errata` script."""
    app()
