"""The Job and the TrainJob of docs/how-to/several-machines.md, as far as they can be tried without Kubernetes."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.tf_config import KINDS, Place

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "several-machines.md").read_text()
OF_JOB, OF_TRAINJOB = re.findall("^```yaml\n(.+?)^```", PAGE, flags=re.M | re.S)
SERVICE, JOB = YAML(typ="safe").load_all(OF_JOB)
RUNTIME, TRAINJOB = YAML(typ="safe").load_all(OF_TRAINJOB)
POD = JOB["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
INDEXES = range(JOB["spec"]["completions"])


def places_of(container: dict, tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    """What each pod's command makes of its index: its place in the cluster, as this project reads TF_CONFIG."""
    folder = tmp_path_factory.mktemp("bin")
    tagger = folder / "tagger"
    tagger.write_text('#!/bin/sh\n[ "$*" = "run --run NAME --from train --until train" ] && printf %s "$TF_CONFIG"\n')
    tagger.chmod(0o755)
    given = {each["name"]: each["value"] for each in container["env"]}

    def place(index: int) -> Place:
        environment = given | {"JOB_COMPLETION_INDEX": str(index), "PATH": f"{folder}:{os.environ['PATH']}"}
        done = subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=True)
        found = Place.of(done.stdout)
        assert found
        return found

    return [place(index) for index in INDEXES]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    return places_of(CONTAINER, tmp_path_factory)


@pytest.fixture(scope="module")
def trainjob_places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    return places_of(TRAINJOB["spec"]["trainer"], tmp_path_factory)


def test_a_trainjob_makes_the_same_places_under_the_names_of_its_pods(places, trainjob_places):
    """Pod i has the host name TRAINJOB-JOB-0-i, and below it the TrainJob's own name."""
    assert list(map(str, trainjob_places)) == list(map(str, places))
    train = TRAINJOB["metadata"]["name"]
    [job] = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
    for index, place in zip(INDEXES, trainjob_places, strict=True):
        if place.kind in place.addresses:
            assert place.addresses[place.kind][place.index] == f"{train}-{job['name']}-0-{index}.{train}:2222"
    assert TRAINJOB["spec"]["runtimeRef"] == {"kind": RUNTIME["kind"], "name": RUNTIME["metadata"]["name"]}
    assert TRAINJOB["spec"]["trainer"]["numNodes"] == RUNTIME["spec"]["mlPolicy"]["numNodes"] == len(INDEXES)


def test_each_pod_is_another_process_and_every_kind_is_there(places):
    assert len({str(place) for place in places}) == len(places)
    assert {place.kind for place in places} == set(KINDS)
    named = [(kind, index) for kind, found in places[0].addresses.items() for index in range(len(found))]
    assert {*named, ("evaluator", 0)} == {(place.kind, place.index) for place in places}


def test_a_pod_listens_under_the_name_that_the_others_know(places):
    """Pod i of an indexed Job has the host name JOB-i, and below it the Service that is its subdomain."""
    job, service = JOB["metadata"]["name"], SERVICE["metadata"]["name"]
    for index, place in zip(INDEXES, places, strict=True):
        if place.kind in place.addresses:
            assert place.addresses[place.kind][place.index] == f"{job}-{index}.{service}:2222"
    assert POD["subdomain"] == service
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": job}


def test_all_pods_run_at_once_and_the_chief_decides(places):
    spec = JOB["spec"]
    assert spec["parallelism"] == spec["completions"]
    [rule] = spec["successPolicy"]["rules"]
    assert places[int(rule["succeededIndexes"])].leads


def test_nothing_is_recommended_that_its_maintainers_gave_up():
    assert "kind: TFJob" not in PAGE
