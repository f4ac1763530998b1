"""Puts the server together: its routes, the task that follows the registry, and what ends it."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router

from pipeline.registry.registry import Registry
from pipeline.server import grpc_service, open_inference, tf_serving
from pipeline.server.guard import Guard
from pipeline.server.http import route
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.page import Page
from pipeline.server.recording import Recorder
from pipeline.server.shadow import Shadow
from pipeline.server.versions import Limits, Versions

NOTE_SECONDS = 3600.0
"""How often the agreement of a shadow version is added to the series; and once more when the server ends."""

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
        shadowing = None if shadow is None else Shadow(registry, shadow, self.metrics.shadow)
        self.versions = Versions(registry, limits, self.metrics.seen(), shadowing)
        self.metrics.follow(self.versions)
        if recorder:
            recorder.seen = self.metrics.recorded
        self.app = Guard(
            self._router(),
            self.metrics,
            token=listen.token,
            body_bytes=limits.body_bytes,
            access_log=listen.access_log,
        )

    def run(self) -> None:
        """Answer until the process gets SIGINT or SIGTERM. Raises BadInput where a port is taken."""
        with self.listen.bound() as bound:
            config = uvicorn.Config(
                self.app,
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
            *(self.recorder.routes(self.versions) if self.recorder else []),
            *Page(self.versions).routes(),
            *open_inference.Api(self.versions, version("stackoverflow-tagger"), self.recorder).routes(),
        ]
        if self.listen.health_route:
            routes.append(route(self.listen.health_route, self._ready))
        if self.listen.predict_route:
            routes.append(route(self.listen.predict_route, api.vertex, "POST"))
        # A Router, without the layers that Starlette puts around one: the guard does their work in half the time.
        return Router(routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Router) -> AsyncIterator[None]:
        await self.versions.look()
        async with contextlib.AsyncExitStack() as ending:
            if shadow := self.versions.shadow:
                ending.push_async_callback(asyncio.to_thread, shadow.note, self.versions.registry.store)
                ending.push_async_callback(_cancelled, asyncio.create_task(self._note(shadow)))
            ending.push_async_callback(self.versions.close)
            if self.recorder:  # before gRPC, which may answer requests to record until it is closed
                ending.push_async_callback(self.recorder.close)
                ending.push_async_callback(_cancelled, asyncio.create_task(self.recorder.follow()))
            if self.listen.grpc_port is not None:
                await ending.enter_async_context(
                    grpc_service.serving_on(self.listen, self.versions, self.metrics, self.recorder)
                )
            following = asyncio.create_task(self.versions.follow())
            ending.push_async_callback(_cancelled, following)
            gc.collect()
            gc.freeze()  # else each full collection walks through all of TensorFlow's modules while requests wait
            self._tell()
            yield

    async def _note(self, shadow: Shadow) -> None:
        """Note every hour how often the shadow version agrees, until the task is cancelled."""
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            await asyncio.to_thread(shadow.note, self.versions.registry.store)

    def _tell(self) -> None:
        grpc = "" if self.listen.grpc_port is None else f", and gRPC on port {self.listen.grpc_port}"
        live = self.versions.live
        what = f"version {live.version} answers" if live else "no version answers yet"
        log.warning("%s on %s%s; Ctrl-C ends it", what, self.listen.url, grpc)

    async def _alive(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        loaded = self.versions.named()
        return PlainTextResponse(f"version {loaded.version} answers\n")

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
