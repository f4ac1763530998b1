"""Records a share of the requests, and the tags that users say were right, in the store; off unless it is asked for."""

import asyncio
import hashlib
import logging
import random
import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.data.several_tags import SEPARATOR, tags_in
from pipeline.errors import TaggerError, Unavailable
from pipeline.published.answers import Answers
from pipeline.server import bodies
from pipeline.server.background import sentence
from pipeline.server.errors import Refused
from pipeline.server.http import Json, route
from pipeline.server.record_buffer import Buffer
from pipeline.server.versions import Versions
from pipeline.store import feedback, signatures
from pipeline.store.forgotten import Forgotten, Row
from pipeline.store.objects import Store

FEEDBACK = "/v1/feedback"
"""The path at which the right tag is told."""

HEADER = "Tagger-Id"
"""The header of an answer that was recorded: the request's id, by which `/v1/feedback` names it."""

SECONDS = 10.0
"""Requests are written this often; those of the last seconds are lost if the process is killed."""

FLUSH = "writes what was recorded"
"""The task that does so."""

LONGEST_TAG = 200

FILE = re.compile("[0-9a-f]{32}")
"""The first part of an id, which names a file of the store; the second is a secret of whoever asked."""

Seen = Callable[[str, int], None]
"""Is told how many posts were `written` to the store or `skipped`, and how many tags were written, `tagged`."""

log = logging.getLogger(__name__)


class Recorder:
    """Records requests of one server, in files named by a part of the requests' ids."""

    def __init__(self, store: Store, share: float, *, keep_text: bool) -> None:
        """Raises Forbidden where only signed documents are trusted and there is no key to sign with."""
        self.store, self.share, self.keep_text = store, share, keep_text
        self.seen: Seen = lambda result, posts: None
        self._asked, self._tagged = Buffer(), Buffer()
        # One thread for each, so that however many requests wait, one file is read at a time, and one is written.
        self._reader = ThreadPoolExecutor(1, "read-recorded")
        self._writer = ThreadPoolExecutor(1, "record")
        self._forgotten_for_reader, self._forgotten_for_writer = Forgotten(store), Forgotten(store)
        signatures.signed("", {}, store.display_path(feedback.ASKED))

    def record(self, posts: list[bytes], answer: Answers) -> dict[str, str]:
        """Record an answered request, or not, as the share has it; the headers that tell its id."""
        if random.random() >= self.share:  # noqa: S311 - a sample, not a secret
            return {}
        texts = [post.decode(errors="replace") if self.keep_text else None for post in posts]
        secret = secrets.token_hex(16)
        now = datetime.now(UTC).replace(microsecond=0)

        def rows_for(file: str) -> list[Row]:
            answers = zip(posts, texts, answer.given, answer.best.tolist(), strict=True)
            return [
                {
                    "id": f"{file}-{secret}.{number}",
                    "at": now,
                    "version": answer.version,
                    "post": text,
                    "sha256": hashlib.sha256(post).hexdigest(),
                    "predicted": tag,
                    "probability": probability,
                }
                for number, (post, text, tag, probability) in enumerate(answers)
            ]

        file = self._asked.add(rows_for, texts)
        if file is None:
            self.seen("skipped", len(posts))
            return {}
        return {HEADER: f"{file}-{secret}"}

    def routes(self, versions: Versions) -> list[Route]:
        """The route by which the right tag is told; what may be a tag, the version that answers decides."""

        async def feedback(request: Request) -> Response:
            return await self.feedback(request, versions)

        return [route(FEEDBACK, feedback, "POST")]

    async def feedback(self, request: Request, versions: Versions) -> Response:
        """Take the right tag of a post that was asked about: {"id": ..., "tag": ...}.

        A tag that the version does not know may be a new one: it is taken, and the answer names it.
        """
        body = await bodies.json_object(request)
        bodies.only(body, ("id", "tag"))
        name, told = body.get("id"), body.get("tag")
        if not isinstance(name, str) or not isinstance(told, str):
            raise Refused(400, f'send {{"id": ..., "tag": ...}}, with the id of an answer\'s header {HEADER}')
        _check_tag(told)
        row = await self._find(name if "." in name else f"{name}.0")
        if row is None:
            raise Refused(404, f"no recorded post has the id {name[:80]!r}: only a share of the requests is recorded")
        live = versions.named().model
        tags = _tags(told, several=live.limits is not None)
        tag = SEPARATOR.join(tags)
        tagged = row | {"tags": tag, "told": datetime.now(UTC)}
        if not self._tagged.add(lambda _: [tagged], [row["post"]]):
            raise Refused(429, "too much feedback waits to be written: try again in some seconds")
        unknown = [each for each in tags if each not in live.labels]
        answer = {"id": row["id"], "tag": tag, "predicted": row["predicted"]}
        return Json(answer | ({"unknown_tags": unknown} if unknown else {}))

    async def _find(self, name: str) -> Row | None:
        """The recorded post with the id, unless it is forgotten. Raises Refused where the store cannot tell."""
        file = name.partition("-")[0]
        if not FILE.fullmatch(file):
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, file, name)
        except TaggerError as error:
            status = 503 if isinstance(error, Unavailable) else 500
            raise Refused(status, f"the recorded posts cannot be read: {error}") from None

    def _read(self, file: str, name: str) -> Row | None:
        forgotten = self._forgotten_for_reader
        # First those that wait: one that is written meanwhile is in both places for a moment, never in none.
        waiting = self._asked.rows(file)
        if waiting:
            forgotten.look_and_check()
        rows = chain(waiting, feedback.asked(self.store, file, forgotten))
        row = next((row for row in rows if row["id"] == name), None)
        return None if row is None or forgotten.has(row) else row

    async def flush(self) -> None:
        """Write what was recorded, after the flush in progress.

        Raises Unavailable where the store does not take something, which then waits for the next flush.
        """
        # In a thread, which goes on when the task that follows is cancelled.
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write)

    async def close(self) -> None:
        """Write what was recorded for the last time. Raises Unavailable where something is lost."""
        try:
            await self.flush()
        except Unavailable as error:
            raise Unavailable(f"the server ends, so this is lost: {error}") from error

    def _write(self) -> None:
        failure = None
        for folder, buffer in ((feedback.ASKED, self._asked), (feedback.TAGGED, self._tagged)):
            for name, rows in buffer.closed():
                try:
                    feedback.write(self.store, folder, name, rows, self._forgotten_for_writer)
                except Exception as error:  # the files behind this one may be written
                    failure = failure or error
                    continue
                buffer.remove(name)
                self.seen("written" if buffer is self._asked else "tagged", len(rows))
        if failure:
            posts, tags = len(self._asked), len(self._tagged)
            raise Unavailable(
                f"{posts} recorded posts and {tags} tags wait to be written: {sentence(failure)}"
            ) from failure


def _check_tag(tag: str) -> None:
    """Raise Refused, 400, for what is no tag of any model."""
    if not tag.strip() or not tag.isprintable():
        fault = "has a line break or another control character" if tag.strip() else "is empty"
        raise Refused(400, f'the tag {fault}: send {{"id": ..., "tag": ...}} with the right tag of the post')
    if len(tag) > LONGEST_TAG:
        raise Refused(400, f"the tag has {len(tag):,} characters: send at most {LONGEST_TAG}")


def _tags(field: str, *, several: bool) -> list[str]:
    """The tag in the field of a request, or where the model gives `several` all of them, sorted, each once."""
    tags = tags_in(field)
    if not several and (SEPARATOR in field or len(tags) > 1):
        raise Refused(400, f"the model gives a post one tag: send one, without {SEPARATOR!r}")
    if not tags or (several and not all(tag.strip() for tag in field.split(SEPARATOR))):
        raise Refused(400, f"one of the tags between {SEPARATOR!r} is empty: send each tag of the post")
    return tags
