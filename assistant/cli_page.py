"""`mcqa ui` and `mcqa users`: the page, and who may use it."""

from pathlib import Path
from typing import Annotated

import typer

from assistant.cli_options import Dtype, DtypeOption, ModelOption, Quantize, QuantizeOption

users = typer.Typer(
    name="users",
    help="Say who may use the page: a file of names with hashed passwords, for `mcqa ui --auth FILE`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    file: Annotated[Path, typer.Option("--file", metavar="FILE", help="The file of users; made where it is not there.")],
    staff: Annotated[bool, typer.Option("--staff", help="May index, answer files and switch models, besides asking.")] = False,
) -> None:
    """Add a user, or give one a new password and role. The password is asked for, or read from standard input."""
    import sys

    from assistant.users import add_user

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    add_user(file, name, password, "staff" if staff else "student")
    print(f"{name} can sign in as {'staff' if staff else 'student'}: mcqa ui --auth {file}")


def ui(
    host: Annotated[str, typer.Option(help="The address to listen on; the default serves this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    auth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask visitors to sign in; `mcqa users add` writes the file.")
    ] = None,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="The path under which a proxy shows the page, as in /mcqa.")
    ] = "",
    model: ModelOption = None,
    quantize: QuantizeOption = Quantize.none,
    dtype: DtypeOption = Dtype.auto,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Open the page where students ask and practise, and staff adds material.

    Without --auth whoever reaches the page may do everything, so leave --host as it is then.
    """
    from assistant.web import serve

    serve(
        host=host,
        port=port,
        model=model,
        quantize=quantize.value,
        dtype=dtype.value,
        open_browser=open_browser,
        auth=auth,
        root_path=root_path,
    )
