"""Puts the server together: its routes, the task that follows the registry, and what ends it."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from functools import partial

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route, Router

from pipeline.errors import BadInput
from pipeline.registry.card import MODEL
from pipeline.registry.registry import Registry
from pipeline.server import grpc_service, open_inference, recording, tf_serving
from pipeline.server.background import Background
from pipeline.server.connections import Connection, Connections
from pipeline.server.errors import Refused
from pipeline.server.guard import Guard
from pipeline.server.http import route
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.page import Page
from pipeline.server.recording import FEEDBACK, FLUSH, Recorder
from pipeline.server.shadow import NOTE, Shadow
from pipeline.server.versions import FOLLOW, LOOK_SECONDS, Limits, Versions

NOTE_SECONDS = 3600.0
"""How often the agreement of a shadow version is added to the series; and once more when the server ends."""

HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", f"/v1/models/{MODEL}")
"""Routes that answer as Vertex AI's health route must; it may be one of them."""

PREDICT = (f"/v1/models/{MODEL}:predict",)
"""The same of its prediction route."""

log = logging.getLogger(__name__)


class Server:
    """The HTTP and gRPC server of one store's live version."""

    def __init__(
        self,
        registry: Registry,
        listen: Listen,
        limits: Limits | None = None,
        *,
        shadow: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Raises BadInput or CorruptArtifact where the version `shadow` cannot be asked."""
        self.listen, self.recorder, limits = listen, recorder, limits or Limits()
        self.metrics = Metrics()
        self.background = background = Background(self.metrics.failed)
        shadowing = None if shadow is None else Shadow(registry, shadow, self.metrics.shadow, background.failed)
        self.versions = Versions(registry, limits, background, self.metrics.seen(), shadowing)
        self.metrics.follow(self.versions)
        if recorder:
            recorder.seen = self.metrics.recorded
        self.app = Guard(
            self._router(),
            self.metrics,
            token=listen.token,
            body_bytes=limits.body_bytes,
            hosts=listen.hosts,
            access_log=listen.access_log,
            failed=background.failed,
        )

    def run(self) -> None:
        """Answer until the process gets SIGINT or SIGTERM. Raises BadInput where a port is taken."""
        limits = self.versions.limits
        refused = partial(self.metrics.request, "other", seconds=0.0)
        connections = Connections(limits.connections, limits.held_bytes, self.listen.receive_seconds, refused)
        with self.listen.bound() as bound:
            config = uvicorn.Config(
                self.app,
                http=partial(Connection, connections),  # type: ignore[arg-type]
                ws="none",
                timeout_keep_alive=self.listen.keep_alive_seconds,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=10,
            )
            uvicorn.Server(config).run([bound])

    def _router(self) -> Router:
        api = tf_serving.Api(self.versions, self.recorder)
        routes = [
            *api.routes(),  # first, because routes are tried in their order
            route("/healthz", self._alive),
            route("/readyz", self._ready),
            route("/metrics", self._metrics),
            *(self.recorder.routes(self.versions) if self.recorder else [route(FEEDBACK, _no_feedback, "POST")]),
            *Page(self.versions).routes(),
            *open_inference.Api(self.versions, self.recorder).routes(),
        ]
        for variable, path, method, handler, same in (
            ("AIP_HEALTH_ROUTE", self.listen.health_route, "GET", self._ready, HEALTH),
            ("AIP_PREDICT_ROUTE", self.listen.predict_route, "POST", api.vertex, PREDICT),
        ):
            if path and path not in same:
                _refuse_taken(routes, variable, path, method)
                routes.append(route(path, handler, method))
        # A Router, without the layers that Starlette puts around one: the guard does their work in half the time.
        return Router(routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Router) -> AsyncIterator[None]:
        background, versions, recorder = self.background, self.versions, self.recorder
        await background.attempt(FOLLOW, versions.look)
        async with contextlib.AsyncExitStack() as ending:
            if versions.shadow:
                note = partial(asyncio.to_thread, versions.shadow.note, versions.registry.store)
                ending.push_async_callback(background.attempt, NOTE, note)
                await ending.enter_async_context(background.repeating(NOTE, NOTE_SECONDS, note))
            ending.push_async_callback(versions.close)
            if recorder:  # before gRPC, which may answer requests to record until it is closed
                ending.push_async_callback(background.attempt, FLUSH, recorder.close)
                await ending.enter_async_context(background.repeating(FLUSH, recording.SECONDS, recorder.flush))
            if self.listen.grpc_port is not None:
                serving = grpc_service.serving_on(self.listen, versions, self.metrics, recorder)
                await ending.enter_async_context(serving)
            await ending.enter_async_context(background.repeating(FOLLOW, LOOK_SECONDS, versions.look))
            gc.collect()
            gc.freeze()  # else each full collection walks through all imported modules while requests wait
            self._tell()
            yield

    def _tell(self) -> None:
        grpc = "" if self.listen.grpc_port is None else f", and gRPC on port {self.listen.grpc_port}"
        live = self.versions.live
        what = f"version {live.version} answers" if live else "no version answers yet"
        log.warning("%s on %s%s; Ctrl-C ends it", what, self.listen.url, grpc)

    async def _alive(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        self.background.refuse_dead()
        try:
            loaded = self.versions.named()
        except Refused as error:  # 503 for each reason, which is what platforms expect of a server that is not ready
            raise Refused(503, str(error)) from None
        return PlainTextResponse(f"version {loaded.version} answers\n")

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _no_feedback(request: Request) -> Response:
    raise Refused(404, "no feedback is taken, because nothing is recorded: start the server with --record 0.1")


def _refuse_taken(routes: list[Route], variable: str, path: str, method: str) -> None:
    """Raise BadInput where one of the routes answers the path already."""
    scope = {"type": "http", "path": path, "method": method}
    if any(each.matches(scope)[0] is Match.FULL for each in routes):
        raise BadInput(f"{variable}={path} is a path at which this server answers something else: choose another")
