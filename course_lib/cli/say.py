"""What all commands say alike."""

from __future__ import annotations

import typer


def fail(message: object) -> typer.Exit:
    typer.secho(str(message), fg="red", err=True)
    return typer.Exit(1)


def show_first(lines: list[str], most: int, rest: str = "") -> None:
    """The first lines of a long list, and how many more there are; `rest` says where."""
    for line in lines[:most]:
        typer.echo(f"  {line}")
    if len(lines) > most:
        typer.echo(f"  and {len(lines) - most:,} more{rest}")
