"""`course train` and `course evaluate`; on several processes
`torchrun --nproc-per-node 8 -m course_lib.training.run train ...` and `... evaluate ...`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@contextmanager
def in_sentences(keeps: str = "") -> Iterator[None]:
    """Whatever goes wrong ends in a sentence with the way out; `keeps` says what stays."""
    import torch

    from course_lib.training.distributed import PeerLost
    from course_lib.video.errors import VideoError

    try:
        yield
    except KeyboardInterrupt:
        typer.secho(f"broken off{keeps}", fg="red", err=True)
        raise typer.Exit(130) from None
    except (FloatingPointError, PeerLost) as error:
        typer.secho(f"{error}{keeps}", fg="red", err=True)
        raise typer.Exit(1) from None
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError):
            way = "give --set at_once=4 (or fewer), --set recompute=yes, or on several GPUs --set shard=yes"
        elif "DataLoader worker" in first and "Terminated" in first:
            way = "torchrun ended it, after another process of this training"
        elif "DataLoader worker" in first:
            way = "most often memory ran out: use fewer --workers or a smaller batch"
        else:
            raise
        typer.secho(f"{first}: {way}{keeps}", fg="red", err=True)
        raise typer.Exit(1) from None
    except VideoError as error:
        way = "`course data check FOLDER` finds all such files once, and then they are left out"
        typer.secho(f"{error}; {way}{keeps}", fg="red", err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.secho(
            f"{error.filename or ''} {error.strerror or error}: make room or mend it{keeps}", fg="red", err=True
        )
        raise typer.Exit(1) from None


@app.command()
def train(
    network: Annotated[str, typer.Argument(help="A network of course_lib.models.names().")],
    data: Annotated[str, typer.Option(help="K (Kinetics), S (Something-Something v2), A, M, V, X, G, D, L, or a csv.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; one that is there goes on.")],
    root: Annotated[str | None, typer.Option(help="Where the videos are.")] = None,
    subset: Annotated[str, typer.Option(help="Of Kinetics: mini10, mini50, mini200 or all.")] = "all",
    recipe: Annotated[str, typer.Option(help="paper, or short: fewer epochs, for one GPU.")] = "paper",
    start: Annotated[
        str | None, typer.Option(help="What to start from: another run, a checkpoint of one, a released file.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of a released file: whose names it has, such as timm or pyslowfast.")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the recipe, several times: batch=32.")
    ] = None,
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes that read videos, for each that trains.")] = 2,
    save_every: Annotated[int, typer.Option(help="Steps between two checkpoints.")] = 200,
    keep_every: Annotated[int, typer.Option(help="Epochs between two checkpoints that stay; 0: none do.")] = 0,
    test_every: Annotated[int, typer.Option(help="Epochs between two tests.")] = 1,
) -> None:
    """Train a network as its paper does, on one process or, under torchrun, on many.

    Ctrl-C and SIGTERM stop it after the step, saved; the same command goes on, also on another number of processes.
    """
    with in_sentences(f"; {out} keeps the last whole checkpoint, from which the same command goes on"):
        from course_lib.training.fit import Plan, fit

        _require_torchrun()
        changes = pairs(change or [])
        for name, number, least in (
            ("workers", workers, 0),
            ("save-every", save_every, 1),
            ("keep-every", keep_every, 0),
            ("test-every", test_every, 1),
        ):
            if number < least:
                raise ValueError(f"--{name} {number}: give {least} or more")
        plan = Plan(network, data, out, subset, recipe, changes, start, source, seed, root, workers)
        fit(replace(plan, save_every=save_every, keep_every=keep_every, test_every=test_every))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder of `course train`, a checkpoint in one, or a released file.")],
    views: Annotated[str | None, typer.Option(help="Clips x crops, such as 10x3; else those of the paper.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the tables; else one beside the checkpoint.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the videos are; else where they were in training.")] = None,
    network: Annotated[str | None, typer.Option(help="Of a released file: the network.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Of a released file: whose names it has, such as pyslowfast.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Of a released file: K or S.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that read videos, for each that computes.")] = 2,
) -> None:
    """Test a network as its paper does: top-1, top-5, every class and the confusions, as tables and as a picture."""
    with in_sentences():
        from course_lib.training.tested import evaluate_run

        _require_torchrun()
        evaluate_run(run, views, out, root, network, source, data, workers)


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="A folder of `course train`.")],
    once: Annotated[bool, typer.Option("--once", help="Draw it once.")] = False,
) -> None:
    """Draw the loss of a run for as long as it trains, or until Ctrl-C; in a notebook `training.watch.watch` does."""
    from course_lib.training.watch import watch_terminal

    try:
        watch_terminal(run, once=once)
    except ValueError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        pass


def _require_torchrun() -> None:
    """ValueError where Slurm's srun has started several of these, none of which knows of the others."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    if tasks != "1" and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            f"srun has started this {tasks} times, and each would be a run of its own: give srun one task a node, "
            "`srun --ntasks-per-node 1 torchrun ... -m course_lib.training.run ...`, and torchrun starts the processes"
        )


def pairs(texts: list[str]) -> dict[str, str]:
    """key=value texts as a dict; ValueError for what is none."""
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (sign and key and value):
            raise ValueError(f"--set {text}: give key=value, such as --set batch=32")
        found[key] = value
    return found


if __name__ == "__main__":
    app()
