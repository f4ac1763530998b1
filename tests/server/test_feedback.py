"""Requests that are recorded if it is asked for, the right tags that users tell, and posts that are removed again."""

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput
from pipeline.run.runner import run_stage
from pipeline.scoring.watch import watch
from pipeline.server import recording as recording_module
from pipeline.server.errors import Refused
from pipeline.settings import Deployment, Settings
from pipeline.sources.source import Source
from pipeline.store import feedback
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED
from tests.server.conftest import MODEL, Serving, serving

POSTS = ["how do I center a div with css", "a python list of lists", "java class not found"]


@pytest.fixture
def store(finished_run: Run, tmp_path: Path) -> Store:
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def ask(server: Serving, *posts: str) -> httpx.Response:
    answer = server.client.post(f"{MODEL}:predict", json={"instances": list(posts)})
    assert answer.status_code == 200
    return answer


def tell(server: Serving, name: object, tag: object = "css") -> httpx.Response:
    return server.client.post("/v1/feedback", json={"id": name, "tag": tag})


def rows(store: Store, folder: str) -> list[dict]:
    files = Path(store.url, folder).glob("*.parquet")
    return sorted((row for file in files for row in pq.read_table(file).to_pylist()), key=lambda row: row["id"])


def test_nothing_is_recorded_unless_it_is_asked_for(store, tmp_path):
    with serving(store, tmp_path) as server:
        assert "tagger-id" not in ask(server, POSTS[0]).headers
        assert tell(server, f"{'0' * 32}-0").status_code == 404
    assert not Path(store.url, "feedback").exists()


def test_a_recorded_post_and_its_tag_are_read_by_watch_and_by_a_run(store, tmp_path):
    with serving(store, tmp_path, "--record", "1", "--record-text") as server:
        before = ask(server, *POSTS)
        name = before.headers["tagger-id"]
        first, second = tell(server, name), tell(server, f"{name}.1", " python ")
        assert (first.status_code, second.status_code) == (200, 200)
        predicted = before.json()["predictions"][0]["tag"]
        assert first.json() == {"id": f"{name}.0", "tag": "css", "predicted": predicted}
        new_tag = tell(server, f"{name}.2", "cobol")
        assert (new_tag.status_code, new_tag.json()["unknown_tags"]) == (200, ["cobol"])
        for number in range(3, 20):
            name_of_one = ask(server, f"a div with css {number}").headers["tagger-id"]
            for tag in ("html", "java", "css"):
                assert tell(server, name_of_one, tag).status_code == 200
        assert tell(server, ask(server, POSTS[0]).headers["tagger-id"]).status_code == 200
    asked, tagged = rows(store, feedback.ASKED), rows(store, feedback.TAGGED)
    assert len(asked) == 21
    assert [row["post"] for row in asked if row["id"].startswith(f"{name}.")] == POSTS
    assert {row["tags"] for row in tagged} == {"css", "python", "cobol", "html", "java"}
    source = f"{store.url}/{feedback.TAGGED}"
    seen = watch(store, Source.parse(source), Settings(), Deployment())
    assert (seen.posts, seen.unknown_tags, seen.copies) == (19, 1, 35)
    assert {tag: of.posts for tag, of in seen.by_tag.items()} == {"css": 18, "python": 1}
    run = Run(store, "learns")
    run.begin(Settings(source=source, split="hash", train_fraction=0.5), CREATED)
    assert run_stage("ingest", run)["posts_by_tag"] == {"css": 19, "python": 1, "cobol": 1}


def test_feedback_is_taken_after_a_restart_too(store, tmp_path):
    with serving(store, tmp_path, "--record", "1") as server:
        name = ask(server, POSTS[0]).headers["tagger-id"]
    with serving(store, tmp_path, "--record", "1") as server:
        assert tell(server, name).status_code == 200
    assert [row["tags"] for row in rows(store, feedback.TAGGED)] == ["css"]


def test_without_the_texts_none_is_in_any_file(store, tmp_path):
    with serving(store, tmp_path, "--record", "1") as server:
        tell(server, ask(server, POSTS[1]).headers["tagger-id"], "python")
    [row] = rows(store, feedback.TAGGED)
    assert (row["post"], row["tags"]) == (None, "python")
    assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
    for file in Path(store.url, "feedback").rglob("*.parquet"):
        assert b"list of lists" not in file.read_bytes()
        assert pq.read_table(file).column("post").null_count == 1


@pytest.fixture(scope="module")
def recording(finished_run: Run, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("recording")
    shutil.copytree(finished_run.store.url, folder / "store")
    with serving(Store(str(folder / "store")), folder, "--record", "1") as server:
        yield server


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"id": "x", "tag": "css"}, 404, "no recorded post has the id 'x'"),
        ({"id": "../../runs/finished/run", "tag": "css"}, 404, "no recorded post"),
        ({"id": f"{'0' * 32}-0", "tag": "css"}, 404, "no recorded post"),
        ({"id": 3, "tag": "css"}, 400, 'send {"id": ..., "tag": ...}'),
        ({"id": "x"}, 400, 'send {"id": ..., "tag": ...}'),
        ({"id": "x", "tag": "a\nb"}, 400, "has a line break or another control character"),
        ({"id": "x", "tag": "a\x00"}, 400, "has a line break or another control character"),
        ({"id": "x", "tag": ""}, 400, "the tag is empty"),
        ({"id": "x", "tag": "  "}, 400, "the tag is empty"),
        ({"id": "x", "tag": ["css"]}, 400, 'send {"id": ..., "tag": ...}'),
        ({"id": "x", "tag": "a" * 201}, 400, "the tag has 201 characters: send at most 200"),
        ({"id": "x", "tag": "css", "more": 1}, 400, "more"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(recording, body, status, said):
    answer = recording.client.post("/v1/feedback", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize("tag", ["css|html", "|", "css|"])
def test_a_model_of_one_tag_takes_no_separator(recording, tag):
    answer = tell(recording, ask(recording, POSTS[0]).headers["tagger-id"], tag)
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "the model gives a post one tag: send one, without '|'",
    )


@pytest.mark.parametrize(
    ("told", "tags"),
    [("pandas|python", ["pandas", "python"]), (" python | pandas|python", ["pandas", "python"]), ("css", ["css"])],
)
def test_what_is_told_to_a_model_of_several_tags_has_the_form_of_its_answers(told, tags):
    assert recording_module._tags(told, several=True) == tags


@pytest.mark.parametrize("told", ["|", "css|", "css||html", "| css"])
def test_an_empty_one_of_several_tags_is_refused(told):
    with pytest.raises(Refused, match="one of the tags between '|' is empty".replace("|", r"\|")):
        recording_module._tags(told, several=True)


def test_about_the_share_is_recorded(finished_run, tmp_path):
    from pipeline.server.record_buffer import ROWS
    from pipeline.server.recording import Recorder

    class Answer:
        version, given = 1, ["css"]

        class best:
            tolist = staticmethod(lambda: [0.5])

    recorder = Recorder(Store(str(tmp_path)), 0.25, keep_text=True)
    assert 400 < sum(bool(recorder.record([b"post"], Answer)) for _ in range(2000)) < 600
    recorder.share = 1
    for _ in range(2 * ROWS):
        recorder.record([b"post"], Answer)
    assert len(recorder._asked) == ROWS


def recorded(store: Store, *days: float) -> list[str]:
    """The ids of posts that were recorded and tagged so many days ago."""
    now = datetime.now(UTC).replace(microsecond=0)
    made = [
        {"id": f"{number:032x}-0.0", "at": now - timedelta(days=age), "version": 1, "post": f"post {number}"}
        | {"sha256": "", "predicted": "css", "probability": 0.5}
        for number, age in enumerate(days)
    ]
    feedback.write(store, feedback.ASKED, "a", made)
    feedback.write(store, feedback.TAGGED, "b", [row | {"tags": "css"} for row in made])
    return [row["id"] for row in made]


def test_posts_are_removed_by_id(tmp_path, tagger):
    store = Store(str(tmp_path))
    first, second, third = recorded(store, 1, 2, 3)
    done: subprocess.CompletedProcess[str] = tagger("forget", first, second.removesuffix(".0"), "--store", store.url)
    assert (done.returncode, done.stdout) == (0, "removed 4 rows\n")
    for folder in (feedback.ASKED, feedback.TAGGED):
        assert [row["id"] for row in rows(store, folder)] == [third]
    assert not any(b"post 0" in path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert feedback.forget(store, [third]) == 2
    assert list(tmp_path.rglob("*.parquet")) == []
    with pytest.raises(BadInput, match="no recorded post has the id 7: an answer's header Tagger-Id names it"):
        feedback.forget(store, ["7"])


def test_posts_are_removed_by_age(tmp_path):
    store = Store(str(tmp_path))
    young, *_ = recorded(store, 1, 91, 400)
    assert feedback.forget_older(store, 90) == 4
    assert [row["id"] for row in rows(store, feedback.ASKED)] == [young]
    assert feedback.forget_older(store, 90) == 0
