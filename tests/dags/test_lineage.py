"""The OpenLineage events of a run that published, and of one that the gate refused, in the file transport's file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run
from tagger_airflow.lineage import address
from tests.dags.conftest import DAG_ID, SMALL, Airflow

Events = dict[str, dict[str, Any]]
Told = tuple[Airflow, Events, Events]


def events_of(done: Callable[[], Any], file: Path) -> Events:
    """The last event of each task of what `done` runs."""
    seen = file.stat().st_size if file.exists() else 0
    done()
    with file.open() as lines:
        lines.seek(seen)
        events = [json.loads(line) for line in lines]
    return {event["job"]["name"].rpartition(".")[2]: event for event in events}


@pytest.fixture(scope="module")
def told(
    new_airflow: Callable[..., Airflow], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Airflow, Events, Events]:
    """The events of a run that published its model, and of a second whose model the gate refused."""
    file = tmp_path_factory.mktemp("lineage") / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    airflow = new_airflow(AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport))
    published = events_of(lambda: airflow("dags", "test", DAG_ID), file)
    refused = events_of(lambda: airflow("dags", "test", DAG_ID, TAGGER_MIN_ACCURACY="1"), file)
    return airflow, published, refused


def names(datasets: list[dict[str, Any]]) -> list[str]:
    return [dataset["name"] for dataset in datasets]


def test_each_stage_reads_what_earlier_ones_wrote(told):
    _, events, _ = told
    assert {name: events[name]["eventType"] for name in STAGES} == dict.fromkeys(STAGES, "COMPLETE")
    wrote = {name: names(events[name]["outputs"]) for name in STAGES}
    read = {name: names(events[name]["inputs"]) for name in STAGES}
    assert read.pop("ingest") == [address(SMALL)[1]]
    assert read == {name: [*(wrote[need][0] for need in STAGES[name].needs)] for name in read}


def test_a_dataset_is_an_address_in_the_store_with_rows_bytes_and_schema(told):
    airflow, events, _ = told
    for name in STAGES:
        [output] = events[name]["outputs"]
        run = Run(airflow.store, output["name"].split("/")[-3])
        manifest = run.manifest(name)
        assert (output["namespace"], output["name"]) == ("file", airflow.store.path(run.attempt(manifest)))
        statistics = output["outputFacets"]["outputStatistics"]
        assert statistics["rowCount"] == manifest.summary["rows"]
        files = [path for path in Path(output["name"]).rglob("*") if path.is_file()]
        assert statistics["size"] == sum(path.stat().st_size for path in files)
        assert statistics["fileCount"] == len(files)


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("ingest", "posts/train/part-00000.parquet"),
        ("vectorize", "train/part-00000.parquet"),
        ("evaluate", "predictions/part-00000.parquet"),
        ("train", None),
        ("export", None),
    ],
)
def test_the_schema_is_that_of_the_files(told, stage, file):
    [output] = told[1][stage]["outputs"]
    fields = output["facets"].get("schema", {}).get("fields", [])
    expected = pq.read_schema(Path(output["name"], file)) if file else []
    assert {each["name"]: each["type"] for each in fields} == {each.name: str(each.type) for each in expected}


def test_a_refused_run_tells_what_it_left_and_names_the_run_whose_results_it_used(told):
    _, published, refused = told
    assert refused["evaluate"]["eventType"] == "FAIL"
    assert names(refused["evaluate"]["outputs"]) != names(published["evaluate"]["outputs"])
    assert names(refused["evaluate"]["inputs"]) == names(published["evaluate"]["inputs"])
    assert "export" not in refused or refused["export"]["outputs"] == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/posts.csv", ("file", "/data/posts.csv")),
        ("file:///data/posts.csv", ("file", "/data/posts.csv")),
        ("s3://bucket/a/b", ("s3://bucket", "a/b")),
        ("https://user:secret@example.org/posts.csv?day=1", ("https://example.org", "posts.csv?day=1")),
    ],
)
def test_an_address_is_named_as_openlineage_does(url, name):
    assert address(url) == name
