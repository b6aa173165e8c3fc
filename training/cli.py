"""`mcqa-train`: make models for the assistant, by recipe."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from assistant.cli import run as run_application
from training.cli_prepare import prepare

app = typer.Typer(
    name="mcqa-train",
    help="Tune models for the assistant, by recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prepare, name="prepare")


def main() -> None:
    """Run the command line; an error that the user can act on becomes one line and exit status 1."""
    run_application(app)


@app.command()
def recipes() -> None:
    """List the packaged recipes."""
    from training.recipe import packaged_recipes

    for path in packaged_recipes():
        print(path)


@app.command()
def validate(recipe: Annotated[Path, typer.Argument(help="The recipe file.")]) -> None:
    """Check a recipe and its question files without training; prints it with every default filled in."""
    from training.recipe import load_recipe

    print(load_recipe(recipe).model_dump_json(indent=2))


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the model to; it must not exist.")],
) -> None:
    """Tune a model by RECIPE into a folder that `mcqa --model` loads."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from training.recipe import load_recipe

    loaded = load_recipe(recipe)
    from assistant.stats import percent_with_interval
    from training.mcq import run_recipe

    columns = (
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with render.progress(*columns, loss=float("nan")) as update:
        metrics = run_recipe(
            loaded,
            output,
            on_status=lambda text: print(text, file=sys.stderr),
            on_step=lambda at: update(completed=at.step, total=at.steps, loss=at.loss),
        )
    held, correct = metrics["questions"]["held_out"], metrics["held_out_correct"]
    print(f"Trained on {metrics['questions']['trained']} questions in {metrics['seconds']} s: {output}")
    print(f"Held-out accuracy before: {percent_with_interval(correct['before'], held)}")
    print(f"Held-out accuracy after:  {percent_with_interval(correct['after'], held)}")
