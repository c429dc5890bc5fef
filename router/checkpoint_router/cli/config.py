"""`checkpoint-router config show`: what a router would be told here, and by whom."""

from typing import Annotated, Any

import typer

from checkpoint_router.cli import console
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.options import Config, Format, Listen, Storage

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Look at the settings of a router."""


@app.command()
def show(
    config: Config = None,
    listen: Listen = None,
    storage: Storage = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Also where each value comes from.")
    ] = False,
    output: Format = Output.TABLE,
) -> None:
    """Show the settings that `serve` would start with here, after flags, environment and file.

    Ends with exit code 2 and the list of all problems if no router can start with them. Whether
    the port is free and the storage can be opened is not looked at: nothing is touched, and a
    router may be running on both.

    \b
    Examples:
      checkpoint-router config show --storage memory:
      checkpoint-router config show --config router.toml --origin
      CHECKPOINT_ROUTER_STORAGE=memory: checkpoint-router config show --origin
    """
    from checkpoint_router.server.settings import load
    from checkpoint_router.storage.open import shown

    loaded = load({"listen": listen, "storage": storage}, file=config)
    values: dict[str, Any] = loaded.settings.model_dump(mode="json")
    values["storage"] = shown(values["storage"])
    if output is Output.JSON:
        settings = {
            name: {
                "value": value,
                "origin": loaded.origins[name].kind,
                "origin_name": loaded.origins[name].name,
            }
            for name, value in values.items()
        }
        console.document("config.show", {"settings": settings})
        return
    columns = ("SETTING", "VALUE", "ORIGIN") if origin else ("SETTING", "VALUE")
    rows = [
        (name, str(value), str(loaded.origins[name]))[: len(columns)]
        for name, value in values.items()
    ]
    console.table(columns, rows)
