"""Records a share of the requests, and the tags that users say were right, in the store; off unless it is asked for."""

import asyncio
import hashlib
import logging
import random
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.data.several_tags import SEPARATOR, tags_in
from pipeline.errors import TaggerError
from pipeline.execution import feedback
from pipeline.server import bodies
from pipeline.server.errors import Refused
from pipeline.server.http import Json, route
from pipeline.server.versions import Answer, Versions
from pipeline.store.objects import Store

FEEDBACK = "/v1/feedback"
"""The path at which the right tag is told."""

HEADER = "Tagger-Id"
"""The header of an answer that was recorded: the request's id, by which `/v1/feedback` names it."""

SECONDS = 10.0
"""Requests are written this often; those of the last seconds are lost if the process is killed."""

FLUSH = "writes what was recorded"
"""The task that does so."""

ROWS = 10_000
"""Posts that wait to be written; beyond them requests are not recorded."""

LONGEST_TAG = 200

log = logging.getLogger(__name__)


class Recorder:
    """Records requests of one server, in files named by a part of the requests' ids."""

    def __init__(self, store: Store, share: float, *, keep_text: bool) -> None:
        self.store, self.share, self.keep_text = store, share, keep_text
        self._asked: list[dict[str, Any]] = []
        self._tagged: list[dict[str, Any]] = []
        self._writing: list[dict[str, Any]] = []
        self._file = uuid.uuid4().hex
        self._count = 0

    def record(self, posts: list[bytes], answer: Answer) -> dict[str, str]:
        """Record an answered request, or not, as the share has it; the headers that tell its id."""
        if random.random() >= self.share or len(self._asked) >= ROWS:  # noqa: S311 - a sample, not a secret
            return {}
        request, self._count = f"{self._file}-{self._count}", self._count + 1
        now = datetime.now(UTC).replace(microsecond=0)
        for number, (post, tag, probability) in enumerate(zip(posts, answer.given, answer.best.tolist(), strict=True)):
            self._asked.append(
                {
                    "id": f"{request}.{number}",
                    "at": now,
                    "version": answer.version,
                    "post": post.decode(errors="replace") if self.keep_text else None,
                    "sha256": hashlib.sha256(post).hexdigest(),
                    "predicted": tag,
                    "probability": probability,
                }
            )
        return {HEADER: request}

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
        found = await self._find(name if "." in name else f"{name}.0")
        if found is None:
            raise Refused(404, f"no recorded post has the id {name[:80]!r}: only a share of the requests is recorded")
        live = versions.named()
        tags = _tags(told, several=live.limits is not None)
        if len(self._tagged) >= ROWS:
            raise Refused(429, "too much feedback waits to be written: try again in some seconds")
        tag = SEPARATOR.join(tags)
        self._tagged.append(found | {"tags": tag, "told": datetime.now(UTC)})
        unknown = [each for each in tags if each not in live.labels]
        answer = {"id": found["id"], "tag": tag, "predicted": found["predicted"]}
        return Json(answer | ({"unknown_tags": unknown} if unknown else {}))

    async def _find(self, name: str) -> dict[str, Any] | None:
        file = name.partition("-")[0]
        if len(file) != 32 or not all(digit in "0123456789abcdef" for digit in file):
            return None
        for row in (*self._asked, *self._writing):
            if row["id"] == name:
                return row
        rows = await asyncio.to_thread(feedback.asked, self.store, file)
        return next((row for row in rows if row["id"] == name), None)

    async def flush(self) -> None:
        """Write what was recorded; what the store does not take is logged, and lost."""
        asked, tagged, file = self._asked, self._tagged, self._file
        self._writing = asked
        self._asked, self._tagged, self._file, self._count = [], [], uuid.uuid4().hex, 0
        try:
            if asked:
                await asyncio.to_thread(feedback.write, self.store, feedback.ASKED, file, asked)
            if tagged:
                await asyncio.to_thread(feedback.write, self.store, feedback.TAGGED, uuid.uuid4().hex, tagged)
        except TaggerError as error:
            log.error("%d recorded posts and %d tags are lost: %s", len(asked), len(tagged), error)
        self._writing = []


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
