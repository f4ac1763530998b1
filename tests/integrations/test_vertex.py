"""Vertex AI: the package as a training job in its environment, and the upload of a version as its library sends it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from google.auth.credentials import AnonymousCredentials

from pipeline.cli import vertex as job
from pipeline.errors import BadInput, Unavailable
from pipeline.integrations import vertex
from pipeline.model import serving
from pipeline.registry.registry import Registry
from pipeline.store.runs import Run
from tests.conftest import free_port

POSTS = ["--source", "sample://posts?rows=4000&seed=5", "--set", "epochs=2", "--set", "hidden_units=32"]
POSTS += ["--set", "learning_rate=0.01"]


def start(base: Path, config: dict | None = None, *options: str) -> subprocess.Popen[str]:
    """Start the program as a training job does, whose output goes to `base`."""
    environment = os.environ | {
        "AIP_MODEL_DIR": f"{base}/model/",
        "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
    }
    environment |= {"TF_CONFIG": json.dumps(config)} if config else {}
    command = [sys.executable, "-m", "pipeline.cli.vertex", *POSTS, *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def answers(model: Path) -> list[str]:
    with serving.opened(model) as served:
        return [tag.decode() for tag in served.tag(["how do I center a div with css", "a list in python"])["tag"]]


@pytest.mark.thorough
def test_a_jobs_pools_train_together_and_leave_the_model_where_vertex_ai_says(tmp_path):
    addresses = {kind: [f"127.0.0.1:{free_port()}"] for kind in ("chief", "worker", "ps")}
    started = {
        kind: start(tmp_path, {"cluster": addresses, "task": {"type": kind, "index": 0}, "environment": "cloud"})
        for kind in addresses
    }
    outputs = {kind: process.communicate(timeout=400)[0] for kind, process in started.items()}
    assert {kind: process.returncode for kind, process in started.items()} == dict.fromkeys(addresses, 0), outputs
    assert "worker 0 trains on its share" in outputs["worker"]
    said = re.search(r"version \d+, accuracy 0\.\d{4}, is in (.*)$", outputs["chief"].splitlines()[-1])
    assert said
    assert said[1] == f"{tmp_path}/model"
    assert len(answers(tmp_path / "model")) == 2
    assert list((tmp_path / "logs").rglob("*.tfevents*"))


def test_outside_a_job_the_sentence_names_the_variable(monkeypatch):
    monkeypatch.delenv("AIP_CHECKPOINT_DIR", raising=False)
    with pytest.raises(BadInput, match="AIP_CHECKPOINT_DIR is not set, as it is in a custom training job"):
        job.job([])


def test_a_bucket_is_read_where_it_is_mounted(monkeypatch, tmp_path):
    monkeypatch.setenv("AIP_MODEL_DIR", "gs://bucket/base/model/")
    assert job._folder("AIP_MODEL_DIR") == "gs://bucket/base/model/"
    monkeypatch.setattr(job, "MOUNT", tmp_path)
    assert job._folder("AIP_MODEL_DIR") == f"{tmp_path}/bucket/base/model"


class Service:
    """Answers the library's requests for models as aiplatform_v1's own types say: get, upload, and its operation."""

    PARENT = "projects/ours/locations/europe-west4"

    def __init__(self) -> None:
        self.known, self.denied, self.uploads = False, False, list[dict]()
        service = self

        class Rest(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if service.denied:
                    self.answer(403, {"error": {"code": 403, "message": "No.", "status": "PERMISSION_DENIED"}})
                elif service.known:
                    self.answer(200, {"name": f"{service.PARENT}/models/stackoverflow-tagger"})
                else:
                    self.answer(404, {"error": {"code": 404, "message": "None.", "status": "NOT_FOUND"}})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.uploads.append({"path": self.path} | asked)
                service.known = True
                name = f"{service.PARENT}/models/stackoverflow-tagger"
                done = {"model": name, "modelVersionId": str(len(service.uploads))}
                kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"
                self.answer(200, {"name": f"{name}/operations/1", "done": True, "response": {"@type": kind} | done})

            def answer(self, status: int, body: dict) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    from google.cloud import aiplatform_v1  # takes seconds to import, in each process that collects the tests

    made = Service()
    client = aiplatform_v1.ModelServiceClient(
        transport="rest", credentials=AnonymousCredentials(), client_options={"api_endpoint": made.url}
    )
    monkeypatch.setattr(vertex, "_aiplatform", lambda location: (aiplatform_v1, client))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def registry(finished_run: Run, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry whose store says that it is in a bucket."""
    made = Registry(job.Store(finished_run.store.url))
    monkeypatch.setattr(made.store, "url", "gs://bucket/tagger")
    return made


def test_a_version_is_uploaded_and_the_next_one_is_a_version_of_the_same_model(registry, service):
    card = registry.published(None)
    name = f"{service.PARENT}/models/stackoverflow-tagger"
    assert vertex.upload(registry, None, "ours", "europe-west4") == f"{name}@1"
    assert vertex.upload(registry, card.version, "ours", "europe-west4", "ours/image:1") == f"{name}@2"
    first, second = service.uploads
    assert first["path"].partition("?")[0] == f"/v1/{service.PARENT}/models:upload"
    assert (first["modelId"], second["parentModel"]) == ("stackoverflow-tagger", name)
    assert first["model"]["artifactUri"] == f"gs://bucket/tagger/{card.path}"
    assert first["model"]["versionAliases"] == [f"tagger-{card.version}"]
    assert first["model"]["containerSpec"] == {"imageUri": vertex.TENSORFLOW_SERVING}
    assert second["model"]["containerSpec"] == {
        "imageUri": "ours/image:1",
        "command": ["tagger", "serve"],
        "env": [{"name": "TAGGER_STORE", "value": "gs://bucket/tagger"}],
        "ports": [{"containerPort": vertex.PORT}],
        "predictRoute": "/v1/models/stackoverflow_tagger:predict",
        "healthRoute": "/healthz",
    }
    from google.cloud.aiplatform_v1 import Model

    for asked in service.uploads:  # the library's own types accept what was sent
        Model.from_json(json.dumps(asked["model"]))


def test_a_refusal_is_one_sentence(registry, service):
    service.denied = True
    with pytest.raises(BadInput, match=r"^version \d+: Google denies access \(.*No\); grant the role Vertex AI User"):
        vertex.upload(registry, None, "ours", "europe-west4")


def test_a_service_that_is_away_can_be_asked_again(registry, service):
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(Unavailable, match="Vertex AI could not be reached; try again later"):
        vertex.upload(registry, None, "ours", "europe-west4")


def test_a_store_that_vertex_ai_cannot_read_is_refused(finished_run):
    with pytest.raises(BadInput, match="Vertex AI reads models from Google Cloud Storage, and the store is /"):
        vertex.upload(Registry(finished_run.store), None, "ours", "europe-west4")
