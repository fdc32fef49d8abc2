"""`errata attribute`: which layers make an answer, and where in the picture it comes from."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.client import fail, server
from app.errata import BadPicture
from app.errata.pictures import encoded

app = typer.Typer(add_completion=False)

DEFAULT_OUT = Path("attribution.png")


@app.command()
def attribute(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or GIF.")],
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    out: Annotated[
        Path | None, typer.Option(help="PNG to write. [attribution.png; none with --json]")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures, as POST /attributions gives them.")
    ] = False,
    token: Annotated[
        int, typer.Option(min=0, help="Which token of the answer to explain, counted from 0.")
    ] = 0,
    url: Annotated[
        str | None, typer.Option(help="Ask this server. Without it, load the model here.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="heraldry, a hub id, or a folder. [heraldry]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
) -> None:
    """Ask a question and show where its answer comes from, in figures and as a picture.

    The curve says what attention and MLP of each block contribute to the answer; the layer
    recommended for editing is the one right before attention begins to contribute. The map says
    which patches of the picture attention's output depends on. It is the base model that is
    explained: no edit takes part.

    One question's curve is noisy: to choose a layer for a model, look at many questions.

    Examples:

        errata attribute docs/samples/star.png "What colour is the star?"

        errata attribute emblem.png "Describe the emblem." --token 3 --out fourth-word.png

        errata attribute photo.jpg "What is on the table?" --url http://127.0.0.1:8000 --json
    """
    if url is not None and model is not None:
        raise typer.BadParameter("a server has its own model", param_hint="--model")
    if url is not None:
        with server(url) as client:
            found = client.attribute(image, prompt, token=token).to_dict()
    else:
        body = {"image": _read(image), "prompt": prompt, "token": token}
        found = _here(body, model, device, dtype)
    target = out or (None if as_json else DEFAULT_OUT)
    if target is not None:
        _save(found["picture"], target)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    typer.echo(found["answer"])
    typer.echo("block  attention     MLP")
    for block in found["layers"]:
        mark = "  <- edit here" if block["layer"] == found["recommended_layer"] else ""
        typer.echo(f"{block['layer']:5d}  {block['attention']:9.3f}  {block['mlp']:6.3f}{mark}")
    typer.echo(f"picture: {target}", err=True)


def _read(image: Path) -> str:
    try:
        return encoded(image)
    except BadPicture as error:
        raise fail(str(error)) from error


def _here(body: dict[str, Any], model: str | None, device: str, dtype: str) -> dict[str, Any]:
    """What a server would answer, from a model in this process."""
    from pydantic import ValidationError

    from app.errors import ServiceError
    from app.images import check_size, data_uri, decode, read_field
    from app.schemas.attributions import AttributionRequest, AttributionView
    from editing_core.attribution.attribute import attribute as attribute_answer
    from editing_core.attribution.pictures import draw_attribution
    from editing_core.config import Placement
    from editing_core.editable_model import EditableModel
    from editing_core.errors import EditingError

    try:
        Placement.resolve(device, dtype)
    except (ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error), param_hint="--device, --dtype") from error
    try:
        ask = AttributionRequest(**body)
        data = read_field(ask.image)
        check_size(data)
        pixels = decode(data).pixels
        loaded = EditableModel.load(model, device=device, dtype=dtype)
        found = attribute_answer(loaded, pixels, ask.prompt, token=ask.token)
    except (ServiceError, EditingError) as error:
        raise fail(f"{error.message} {error.hint} ({error.code})") from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise fail(f"{field}: {problem['msg']} (invalid_field)") from error
    drawn = draw_attribution(found, pixels, ask.prompt)
    return AttributionView.of(found, picture=data_uri(drawn)).model_dump(mode="json")


def _save(picture: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture.partition(",")[2]))
    except OSError as error:
        raise fail(f"cannot write {path}: {error.strerror}") from error
