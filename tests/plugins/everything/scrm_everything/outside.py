"""What the plugin has to do with the world: a hook that others call, a book that it writes into, commands."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from scrm.api import Command, Deliverer, IdentityRef, NewEvent, PluginContext, Route, ScrmError

from .events import MARKED
from .handlers import SPEND
from .models import marks
from .settings import EverythingWiring


def write(wiring: EverythingWiring, line: str) -> None:
    """Put a line into the book."""
    with wiring.book.open("a", encoding="utf-8") as book:
        book.write(f"{line}\n")


async def greet(message: Mapping[str, Any], wiring: EverythingWiring) -> None:
    """Deliver a greeting."""
    signed = hmac.new(wiring.secret.get_secret_value().encode(), str(message["user"]).encode(), hashlib.sha256).hexdigest()
    write(wiring, f"{message['user']} {message['weight']} {signed}")


async def hook(request: Request, context: PluginContext) -> Response:
    """Somebody outside marks a person: XML, signed with the secret."""
    body = await request.body()
    expected = hmac.new(context.wiring.secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise ScrmError("BAD_SIGNATURE", "x-signature is not the body's; sign it with the secret")
    key, channel, person, weight = body.decode().removeprefix("<mark>").removesuffix("</mark>").split("|")
    made = _marked("hook", key, channel, person, int(weight), context.clock())
    [result] = await context.record([made])
    return Response(f"<{result.status.value.lower()}/>", media_type="text/xml")


async def how_many(request: Request, context: PluginContext) -> Response:
    """How many marks there are."""
    return PlainTextResponse(str(await context.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(marks)))))


async def tell(context: PluginContext, least: Annotated[int, typer.Option(help="Only of this weight or more.")] = 0) -> None:
    """Say how many marks there are."""
    heavy = sa.select(sa.func.count()).where(marks.c.weight >= least)
    typer.echo(
        f"{await context.read(lambda tx: tx.scalar(heavy))} marks of {least} or more; the book is {context.wiring.book.name}"
    )


async def add(context: PluginContext, channel: str, person: str, weight: int, key: str) -> None:
    """Mark a person."""
    [result] = await context.record([_marked("command", key, channel, person, weight, context.clock())])
    typer.echo(result.status.value)
    for error in result.errors:
        typer.echo(error.message, err=True)


def _marked(source: str, key: str, channel: str, person: str, weight: int, at: datetime) -> NewEvent:
    return NewEvent(MARKED, f"everything-{source}", key, at, identity=IdentityRef(channel, person), properties={"weight": weight})


async def say_hello(request: Request) -> Response:
    """A page without a context."""
    return JSONResponse({"hello": request.query_params.get("to", "you")})


async def till(request: Request, context: PluginContext) -> Response:
    """A till spends a person's marks and is answered at once."""
    said = await request.json()
    done = await context.decide(SPEND, {"user": said["user"], "weight": said["weight"]}, key=said["receipt"], actor="till")
    return JSONResponse({"again": done.repeated, "perOrder": (await context.rules()).per_order})


HOOK = Route("/hook", ("POST",), hook, public=True)
COUNT = Route("/count", ("GET",), how_many, scope="marks:read")
TILL = Route("/till", ("POST",), till, scope="marks:write")
HELLO = Route("/hello", ("GET",), say_hello, public=True)
TELL = Command("tell", tell)
ADD = Command("add", add)
GREETING = Deliverer("greeting", greet)
