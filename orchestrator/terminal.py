"""What the commands share: arguments, and the terminal that they print to. Imports no torch and no Ray."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

WIDTH_OF_FILES = 140

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the config, as key.path=value.", metavar="[KEY.PATH=VALUE]..."),
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, e.g. auto or ray://host:10001.")]


def terminal() -> Console:
    """Wide where the output goes to a file: tables are not folded there."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_FILES)
