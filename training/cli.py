"""`mcqa-train`: make models for the assistant, by recipe."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from assistant.cli import run as run_application
from training.cli_evaluate import evaluate
from training.cli_prepare import prepare
from training.cli_quantize import extract, quantize

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
app.command()(quantize)
app.command()(extract)
app.command()(evaluate)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a packaged one.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="FOLDER", help="Where the recipe's files lie; default: beside the recipe.")
]


def main() -> None:
    """Run the command line; an error that the user can act on becomes one line and exit status 1."""
    run_application(app)


@app.command()
def recipes() -> None:
    """List the packaged recipes: their names, and what they make."""
    from training.recipe import load_recipe, packaged_recipes

    for path in packaged_recipes():
        print(f"{path.stem:14} {load_recipe(path).about}")


@app.command()
def show(recipe: RecipeArgument) -> None:
    """Print a recipe file as it is, comments and all."""
    from training.recipe import load_recipe, located

    load_recipe(recipe)  # names what is wrong with it
    print(located(recipe).read_text(encoding="utf-8"), end="")


@app.command()
def copy(
    recipe: RecipeArgument,
    target: Annotated[Path | None, typer.Argument(help="The file to write; default: its own name, here.")] = None,
) -> None:
    """Copy a packaged recipe, to change it."""
    from ingest.errors import UserError
    from training.recipe import load_recipe, located

    load_recipe(recipe)
    source = located(recipe)
    file = target or Path(source.name)
    file = file / source.name if file.is_dir() else file
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(source.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise UserError(f"{file} already exists; name another file") from error
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror})") from error
    print(file)


@app.command()
def validate(recipe: RecipeArgument, data: DataOption = None) -> None:
    """Check a recipe and its data without loading a model; prints it with every default filled in, and what it will take."""
    from training.preflight import refuse
    from training.recipe import load_recipe
    from training.run import check_data

    loaded = load_recipe(recipe)
    refuse(loaded)
    print(loaded.model_dump_json(indent=2))
    for line in check_data(loaded, data):
        print(line, file=sys.stderr)


@app.command()
def run(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write to.")],
    data: DataOption = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from this model of the same architecture instead.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="FOLDER", help="A tokenizer instead of the recipe's.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop each stage after N steps.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Run in several processes: multi-gpu, fsdp, deepspeed-zero2, deepspeed-zero3, cpu, or a file."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="How many processes --launch starts.")] = 2,
) -> None:
    """Carry out RECIPE; FOLDER/model is then what `mcqa --model` loads."""
    from training.recipe import load_recipe
    from training.run import Options, leads
    from training.run import run as carry_out

    if launch is not None:
        from training import launching

        given = {"--data": data, "--model": model, "--tokenizer": tokenizer, "--max-steps": max_steps}
        named = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        again = ["--resume"] if resume else []
        raise typer.Exit(launching.launch(launch, processes, ["run", str(recipe), "-o", str(output), *named, *again]))
    options = Options(data=data, model=model, tokenizer=tokenizer, max_steps=max_steps, resume=resume)
    for line in carry_out(load_recipe(recipe), output, options, on_status=lambda text: print(text, file=sys.stderr)):
        if leads():
            print(line, flush=True)


if __name__ == "__main__":
    main()
