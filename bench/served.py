"""One server process with three ways to the same answers: scrm, the floor, and the usual way."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import asynccontextmanager
from typing import Any

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

EVERYBODY = CostSettings(maximum=10**12, restore_per_second=10**12)


def settings_for(url: str) -> Settings:
    """Settings as a server has them; only the bucket is too large to be emptied by one caller alone."""
    sections = {"loyalty": PluginSection(enabled=True), "batched": PluginSection(enabled=True)}
    return Settings(database_url=url, plugins=sections, server=ServerSettings(ide=False, cost=EVERYBODY))


def build(url: str) -> Starlette:
    """`/graphql` is scrm; `/floor/NAME` runs the statement that scrm ran last, after `/watch/NAME`; `/usual` is the usual way."""
    settings = settings_for(url)
    app = create_app(settings, plugins=load_plugins(settings, extra={"batched": batched}))
    db = app.state.services.db
    engine = create_async_engine(url, pool_size=10, max_overflow=0, connect_args={"server_settings": {"jit": "off"}})
    ran: dict[str, tuple[str, list[Any]]] = {}
    fetch = db.fetch

    async def watch(request: Request) -> Response:
        async def remember(sql: str, parameters: Any) -> Any:
            ran[request.path_params["name"]] = sql, parameters
            return await fetch(sql, parameters)

        vars(db)["fetch"] = remember if request.query_params.get("on") else fetch
        return Response(orjson.dumps(app.state.endpoint.shortcut.taken))

    async def floor(request: Request) -> Response:
        sql, parameters = ran[request.path_params["name"]]
        [[value]] = await fetch(sql, parameters)
        return Response(value, media_type="application/json")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        async with app.router.lifespan_context(app):
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)
            yield
        await engine.dispose()

    routes = [
        Route("/watch/{name}", watch),
        Route("/floor/{name}", floor, methods=["POST"]),
        Mount("/usual", Usual(engine)),
        Mount("/", app),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    """Serve on a port until the parent ends."""
    url, port = os.environ["BENCH_URL"], int(sys.argv[1])
    config = uvicorn.Config(build(url), port=port, log_level="warning", loop="uvloop", http="httptools", access_log=False)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
