"""The TFJob of docs/scaling.md, as far as it can be tried without Kubernetes."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.store.runs import name_of
from pipeline.tf_config import KINDS

SCALING = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
RUN = name_of("manual__2026-11-22T13:12:33.775667+00:00")
[JOB] = [YAML(typ="safe").load(block) for block in re.findall("^```yaml\n(.+?)^```", SCALING, flags=re.M | re.S)]


def test_kubernetes_may_call_it_so_whatever_the_run_is_called():
    """Names of pods and services are made of it: RFC 1035's labels."""
    metadata = JOB["metadata"]
    name = metadata.get("name") or metadata["generateName"] + "x7k2q"
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name.replace("NAME", RUN))


def test_it_has_every_kind_of_process_and_one_chief():
    replicas = {kind.lower(): process["replicas"] for kind, process in JOB["spec"]["tfReplicaSpecs"].items()}
    assert set(replicas) == set(KINDS)
    assert replicas["chief"] == 1
