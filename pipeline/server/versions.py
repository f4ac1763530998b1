"""Follows the registry: the live version is loaded and answers, until another one is ready to take its place."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import Unavailable
from pipeline.published.answers import Answers
from pipeline.registry.card import MODEL
from pipeline.registry.registry import Registry
from pipeline.server.background import Background, sentence
from pipeline.server.batching import Batcher
from pipeline.server.errors import Refused
from pipeline.server.loaded import Loaded
from pipeline.server.shadow import Shadow

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the registry is looked at."""

FOLLOW = "follows the registry"
"""The task that looks at it."""

AGAIN_SECONDS = 60.0
"""After so long a version that could not be loaded is tried again."""

LIVE = "live"
"""The label of the live version, as in /v1/models/<name>/labels/live."""

KEPT_STATES = 10

SHORT_BYTES = 100_000
"""Up to so many bytes a batch of posts is computed without a thread: in some two milliseconds."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask: posts, bytes of one post and of the body; and how many posts wait or make a batch.

    `connections` and `held_bytes` are of all clients together: connections, and bytes of bodies not yet answered.
    """

    posts: int = 1000
    post_bytes: int = 100_000
    body_bytes: int = 8 * 2**20
    waiting: int = 10_000
    batch: int = 64
    connections: int = 1000
    held_bytes: int = 128 * 2**20


@dataclass(frozen=True)
class State:
    """What became of a version here, in TensorFlow Serving's words, and why it could not be loaded."""

    state: str
    error: str = ""


@dataclass
class Seen:
    """Functions that are told what happened, for the metrics; `answer` by the thread that computed the batch."""

    answer: Callable[[Answers], None] = field(default=lambda answer: None)
    change: Callable[[int, bool], None] = field(default=lambda version, served: None)


def refuse_other_model(name: str) -> None:
    """Raise Refused, 404, where a request names another model."""
    if name != MODEL:
        raise Refused(404, f"there is no model {name!r}: the model is {MODEL}")


@dataclass(frozen=True)
class _Served:
    loaded: Loaded
    posts: Batcher
    vectors: Batcher


class Versions:
    """The version that answers. All but the loading and long computing happens in the event loop's thread."""

    def __init__(
        self,
        registry: Registry,
        limits: Limits,
        background: Background,
        seen: Seen | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.registry, self.limits, self.seen, self.shadow = registry, limits, seen or Seen(), shadow
        self.background = background
        self.states: dict[int, State] = {}
        self._served: _Served | None = None
        self._tried: dict[int, float] = {}
        self._computing = ThreadPoolExecutor(1, "compute")
        self._unreadable = ""

    @property
    def live(self) -> Loaded | None:
        """The version that answers; None until the first one is loaded."""
        return self._served.loaded if self._served else None

    @property
    def vector_size(self) -> int:
        """How many numbers a vector has for the version that answers; Refused while none does."""
        return self._serving().loaded.model.vector_size

    @property
    def waiting(self) -> int:
        """How many posts wait for a batch."""
        return self._served.posts.waiting if self._served else 0

    def known(self) -> dict[int, State]:
        """What became of each version here. Raises Refused where there was none."""
        if not self.states:
            raise self._reason()
        return dict(self.states)

    def named(self, version: str | None = None, label: str | None = None) -> Loaded:
        """The version that a request names by number or label. Raises Refused, 404 or 503, where it does not answer."""
        served = self._serving()
        if label not in (None, LIVE):
            raise Refused(404, f"there is no label {label!r}: {LIVE!r} names the version that answers")
        if version is not None and version != str(served.loaded.version):
            raise Refused(
                404, f"version {version} is not loaded: version {served.loaded.version} is live, ask that one"
            )
        return served.loaded

    async def tag(self, posts: list[bytes]) -> Answers:
        """Tag the posts with the version that answers. Raises Refused where none does, or too many posts wait."""
        answer: Answers = await self._serving().posts(posts)
        return answer

    async def from_vectors(self, vectors: list[np.ndarray]) -> Answers:
        """The same for dense vectors, float32 [vocabulary_size] each. Raises Refused also where an answer overflows."""
        answer: Answers = await self._serving().vectors(vectors)
        if not np.isfinite(answer.probabilities).all():
            raise Refused(400, "the vectors have numbers that are too large: the model's sums of them are not finite")
        return answer

    async def words_for(self, post: bytes, tag: int) -> list[tuple[str, float]]:
        """The words of a post that speak most for a tag, as the version that answers sees them."""
        loaded = self._serving().loaded
        return await asyncio.get_running_loop().run_in_executor(self._computing, loaded.model.words_for, post, tag)

    async def look(self) -> None:
        """Load the live version if it is not the one that answers. Raises what goes wrong: the one before it stays."""
        try:
            version = await asyncio.to_thread(self.registry.live)
        except Exception as error:
            self._unreadable = f"the registry cannot be read: {sentence(error)}"
            raise Unavailable(f"{self._unreadable} (version {self._number()} stays)") from error
        self._unreadable = ""
        if version is None or version == self._number() or self._failed_lately(version):
            return
        self._note(version, State("LOADING"))
        try:
            loaded = await asyncio.to_thread(Loaded.of, self.registry, version)
        except Exception as error:
            self._tried[version] = time.monotonic()
            self._note(version, State("END", sentence(error)))
            self.seen.change(version, False)
            stays = f": version {self._number()} stays" if self._served else ""
            raise Unavailable(
                f"version {version} is live in the registry, but is not served{stays} ({sentence(error)})"
            ) from error
        await self._replace_by(loaded)

    async def close(self) -> None:
        """Answer what was accepted, and free the memory."""
        if self._served:
            await self._retire(self._served)
        self._computing.shutdown()
        if self.shadow:
            await asyncio.to_thread(self.shadow.close)

    def _serving(self) -> _Served:
        if self._served is None:
            raise self._reason()
        return self._served

    def _reason(self) -> Refused:
        """Why no version answers: 404 where none is live, as TensorFlow Serving and Open Inference say, else 503."""
        if self._unreadable:
            return Refused(503, self._unreadable)
        if not self.states:
            return Refused(404, "no version is live yet: `tagger run` publishes one")
        [*_, (version, state)] = self.states.items()
        return Refused(503, state.error or f"version {version} is being loaded: ask again in some seconds")

    def _number(self) -> int | None:
        return self._served.loaded.version if self._served else None

    def _failed_lately(self, version: int) -> bool:
        return time.monotonic() - self._tried.get(version, -AGAIN_SECONDS) < AGAIN_SECONDS

    async def _replace_by(self, loaded: Loaded) -> None:
        before = self._served

        def of_posts(posts: list[bytes]) -> Answers:
            answer = loaded.model.answer(posts)
            self.seen.answer(answer)
            if self.shadow:
                self.shadow.ask(posts, answer.given, answer.version)
            return answer

        def of_vectors(vectors: list[np.ndarray]) -> Answers:
            return loaded.model.from_vectors(np.stack(vectors))

        def is_short(posts: list[bytes]) -> bool:
            return loaded.model.is_light and sum(map(len, posts)) <= SHORT_BYTES

        batch, queue = self.limits.batch, self.limits.waiting
        posts = Batcher(of_posts, self._computing, batch=batch, queue=queue, is_short=is_short)
        vectors = Batcher(of_vectors, self._computing, batch=batch, queue=queue)
        self._served = _Served(loaded, posts, vectors)
        self._note(loaded.version, State("AVAILABLE"))
        self.seen.change(loaded.version, True)
        log.info("version %d answers%s", loaded.version, f" instead of {before.loaded.version}" if before else "")
        if before:
            try:
                await self._retire(before)
            finally:
                self._note(before.loaded.version, State("END"))

    async def _retire(self, served: _Served) -> None:
        await asyncio.gather(served.posts.drained(), served.vectors.drained())
        # Behind the words that a page may be waiting for, which only this thread computes.
        await asyncio.get_running_loop().run_in_executor(self._computing, served.loaded.close)

    def _note(self, version: int, state: State) -> None:
        self.states.pop(version, None)
        self.states[version] = state
        while len(self.states) > KEPT_STATES:
            self.states.pop(next(iter(self.states)))
