"""One server process with three ways to the same answers: scrm, the floor, and the usual way."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import uvicorn
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from bench import batched
from bench.usual import Usual
from scrm.app import create_app
from scrm.config import CostSettings, PluginSection, ServerSettings, Settings
from scrm.loader import load_plugins
from scrm.memory import settle

SESSION = {"jit": "off"}
EVERYBODY = CostSettings(maximum=10**12, restore_per_second=10**12)


PLUGINS = ("loyalty", "batched")


def settings_for(url: str, names: Sequence[str] = PLUGINS) -> Settings:
    """Settings as a server has them; only the bucket is too large to be emptied by one caller alone."""
    sections = {name: PluginSection(enabled=True) for name in names}
    return Settings(database_url=url, plugins=sections, server=ServerSettings(ide=False, cost=EVERYBODY))


def build(url: str, names: Sequence[str] = PLUGINS) -> Starlette:
    """scrm with these plugins; in it `/floor/NAME`, which runs the statement that scrm ran last after `/watch/NAME`, and
    `/usual`, the usual way; these on PostgreSQL."""
    settings = settings_for(url, names)
    app = create_app(settings, plugins=load_plugins(settings, extra={"batched": batched} if "batched" in names else {}))
    if not url.startswith("postgresql"):
        return app
    db = app.state.services.db
    engine = create_async_engine(url, pool_size=10, max_overflow=0, connect_args={"server_settings": SESSION})
    ran: dict[str, tuple[str, list[Any]]] = {}
    sent = 0
    pools: list[asyncpg.Pool[Any]] = []
    fetch = db.fetch

    async def watch(request: Request) -> Response:
        async def remember(sql: str, parameters: Any) -> Any:
            nonlocal sent
            sent += 1
            ran[request.path_params["name"]] = sql, parameters
            return await fetch(sql, parameters)

        vars(db)["fetch"] = remember if request.query_params.get("on") else fetch
        return Response(orjson.dumps({"taken": app.state.endpoint.shortcut.taken, "sent": sent}))

    async def floor(request: Request) -> Response:
        sql, parameters = ran[request.path_params["name"]]
        return Response(await pools[0].fetchval(sql, *parameters), media_type="application/json")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        arguments = engine.dialect.create_connect_args(engine.url)[1]
        async with inner(app), asyncpg.create_pool(**arguments, server_settings=SESSION, init=as_bytes, reset=keep) as pool:
            pools.append(pool)
            settle()
            yield
        await engine.dispose()

    app.router.routes[:0] = [
        Route("/floor/{name}", floor, methods=["POST"]),
        Mount("/usual", Usual(engine)),
        Route("/watch/{name}", watch),
    ]
    inner, app.router.lifespan_context = app.router.lifespan_context, lifespan
    return app


async def as_bytes(connection: Any) -> None:
    """JSON stays text."""
    await connection.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=bytes, format="binary")


async def keep(_connection: Any) -> None:
    """The statement sets nothing that would have to be reset."""


def main() -> None:
    """Serve on a port until the parent ends."""
    url, port, names = os.environ["BENCH_URL"], int(sys.argv[1]), sys.argv[2:]
    config = uvicorn.Config(build(url, names), port=port, log_level="warning", loop="uvloop", http="httptools", access_log=False)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
