"""What Prometheus reads at /metrics: requests, posts, batches, tags answered, and changes of the live version."""

from collections import Counter as TagCounts

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.published.answers import Answers
from pipeline.server.versions import Seen, Versions

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
POSTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        self._requests = Counter(
            "tagger_requests", "Requests answered, by protocol and status", ["api", "status"], registry=to
        )
        self._seconds = Histogram("tagger_request_seconds", "Time to an answer", ["api"], registry=to, buckets=SECONDS)
        self._found: dict[tuple[str, int | str], tuple[Counter, Histogram]] = {}
        self._batches = Histogram("tagger_batch_posts", "Posts computed at once", registry=to, buckets=POSTS)
        self._posts = Counter("tagger_posts", "Posts tagged", registry=to)
        self._tags = Counter("tagger_tags", "Posts for which this tag was the most probable", ["tag"], registry=to)
        self._changes = Counter("tagger_version_changes", "Versions taken up or refused", ["result"], registry=to)
        self._shadow = Counter(
            "tagger_shadow_posts",
            "Posts that the shadow version tagged the same, otherwise, or not",
            ["result"],
            registry=to,
        )
        self._failures = Counter(
            "tagger_background_failures", "Failures of what runs beside the requests, by task", ["task"], registry=to
        )
        self._recorded = Counter(
            "tagger_recorded_posts",
            "Posts that were recorded, or skipped because too much waits, and tags that were told",
            ["result"],
            registry=to,
        )
        self._live = Gauge("tagger_live_version", "The version that answers; 0 while there is none", registry=to)
        self._waiting = Gauge("tagger_waiting_posts", "Posts that wait for a batch", registry=to)

    def seen(self) -> Seen:
        """What the versions tell of their work."""
        return Seen(self._answered, self._changed)

    def failed(self, task: str) -> None:
        """Count a failure of a task that runs beside the requests."""
        self._failures.labels(task).inc()

    def shadow(self, result: str, posts: int) -> None:
        """Count posts by what the shadow version said of them."""
        self._shadow.labels(result).inc(posts)

    def recorded(self, result: str, posts: int) -> None:
        """Count recorded posts by what became of them."""
        self._recorded.labels(result).inc(posts)

    def follow(self, versions: Versions) -> None:
        """Read how many posts wait whenever the metrics are asked for."""
        self._waiting.set_function(lambda: versions.waiting)

    def request(self, api: str, status: int | str, seconds: float) -> None:
        """Count a request."""
        if (found := self._found.get((api, status))) is None:
            found = self._requests.labels(api, str(status)), self._seconds.labels(api)
            self._found[api, status] = found
        requests, times = found
        requests.inc()
        times.observe(seconds)

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def _answered(self, answer: Answers) -> None:
        self._batches.observe(len(answer))
        self._posts.inc(len(answer))
        for tag, count in TagCounts(answer.tags).items():
            self._tags.labels(tag).inc(count)

    def _changed(self, version: int, served: bool) -> None:
        self._changes.labels("served" if served else "refused").inc()
        if served:
            self._live.set(version)
