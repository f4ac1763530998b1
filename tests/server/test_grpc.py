"""What the gRPC server refuses before it costs anything, and how it counts calls that end without an answer."""

import asyncio
import gc
import importlib
import inspect
import itertools
import pkgutil
import socket
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_serving.apis
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from pipeline.data.signatures import FEATURE, VECTORS
from pipeline.registry.registry import Registry
from pipeline.server import grpc_guard, grpc_service
from pipeline.server import tensor_protos as tensors
from pipeline.server.background import Background
from pipeline.server.errors import Refused
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.versions import Limits, Versions
from pipeline.store.objects import Store
from tests.conftest import free_port
from tests.server.conftest import wait_for

MODEL = "stackoverflow_tagger"
PREDICTION = "/tensorflow.serving.PredictionService"
TOKEN = "correct horse battery"
KNOWN = (("authorization", f"Bearer {TOKEN}"),)
MIB = 2**20


class Running:
    """A gRPC server in this process, and what it counted."""

    def __init__(self, versions: Versions, metrics: Metrics, address: str, channel: grpc.Channel) -> None:
        self.versions, self.metrics, self.address, self.channel = versions, metrics, address, channel

    def call(self, path: str, message: bytes, **options: object) -> bytes:
        """Send a message as it is, and return the answer as it is."""
        options.setdefault("metadata", KNOWN)
        return self.channel.unary_unary(path)(message, timeout=60, **options)

    def refused(self, path: str, message: bytes, **options: object) -> tuple[str, str]:
        """The status and the sentence of a call that is not answered."""
        with pytest.raises(grpc.RpcError) as refused:
            self.call(path, message, **options)
        return refused.value.code().name, refused.value.details()

    def counts(self) -> dict[str, float]:
        """How many calls ended with each status."""
        [metric] = [each for each in self.metrics.registry.collect() if each.name == "tagger_requests"]
        return {each.labels["status"]: each.value for each in metric.samples if each.name.endswith("_total")}


@contextmanager
def running(store, *handlers, look=False, token=TOKEN) -> Iterator[Running]:
    """Serve the store over gRPC in a thread, with these generic handlers behind the same guard."""
    metrics, listen = Metrics(), Listen(grpc_port=free_port(), token=token)
    versions = Versions(Registry(store), Limits(), Background(metrics.failed))
    ready, ending = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        if look:
            await versions.look()
        async with grpc_service.serving_on(listen, versions, metrics):
            ready.set()
            await ending.wait()
        await versions.close()

    real = grpc.aio.server
    grpc.aio.server = lambda **options: real(handlers=handlers, **options)
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        grpc.aio.server = real
        address = f"127.0.0.1:{listen.grpc_port}"
        with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
            yield Running(versions, metrics, address, channel)
    finally:
        grpc.aio.server = real
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def server(finished_run) -> Iterator[Running]:
    with running(finished_run.store, look=True) as server:
        yield server


def stub_paths() -> list[str]:
    """Every method of every service of TensorFlow Serving's stubs."""
    paths = list[str]()

    class Recording:
        def __getattr__(self, kind: str) -> object:
            return lambda path, *_, **__: paths.append(path)

    for module in pkgutil.iter_modules(tensorflow_serving.apis.__path__, "tensorflow_serving.apis."):
        if module.name.endswith("_service_pb2_grpc"):
            for name, stub in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if name.endswith("Stub"):
                    stub(Recording())
    return sorted(set(paths))


ANSWERED = {
    f"{PREDICTION}/Predict",
    f"{PREDICTION}/Classify",
    f"{PREDICTION}/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
}
NOWHERE = ["/nowhere/Nothing", f"{PREDICTION}/Nothing", "/grpc.health.v1.Health/Check", "/a"]
STRANGERS = {
    "none": (),
    "wrong": (("authorization", "Bearer wrong"),),
    "twice": (*KNOWN, ("authorization", "Bearer wrong")),
    "other scheme": (("authorization", TOKEN),),
    "not base64": (("authorization", "Basic !"),),
    "binary": (("authorization-bin", f"Bearer {TOKEN}".encode()),),
}


def test_the_methods_are_those_of_the_stubs():
    assert set(stub_paths()) > ANSWERED


@pytest.mark.parametrize("path", [*stub_paths(), *NOWHERE])
def test_each_method_asks_for_the_token_first_and_is_answered_or_said_not_to_be(server, caplog, path):
    for stranger in STRANGERS.values():
        for message in (b"", b"\xff\xff"):
            status, sentence = server.refused(path, message, metadata=stranger)
            assert (status, sentence[:24]) == ("UNAUTHENTICATED", "send the server's token ")
    status, sentence = server.refused(path, b"")
    if path in ANSWERED:
        assert status in ("INVALID_ARGUMENT", "NOT_FOUND")
    else:
        assert (status, sentence.partition(":")[0]) == ("UNIMPLEMENTED", f"{path} is not answered")
    assert caplog.records == []


def test_calls_that_are_not_answered_are_counted(server):
    before = server.counts()
    server.refused(f"{PREDICTION}/Regress", b"")
    server.refused("/nowhere/Nothing", b"", metadata=())
    after = server.counts()
    assert after["UNIMPLEMENTED"] == before.get("UNIMPLEMENTED", 0) + 1
    assert after["UNAUTHENTICATED"] == before.get("UNAUTHENTICATED", 0) + 1


# What a request claims


def request_of(tensor: object = None, name: str = "post", signature: str = "") -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, signature
    if tensor is not None:
        request.inputs[name].CopyFrom(tensor)
    return request


CLAIMS = [[10**7], [3 * 10**8], [2**40], [2**62, 4], [10**4, 10**4], [-1], [-1, -1], [0, 2**62], [3], [1] * 3]
VALUES = [field.name for field in TensorProto.DESCRIPTOR.fields if field.name.endswith("_val")]
CONTENT = "tensor_content"


def claiming(number: int, field: str | None, shape: list[int]) -> TensorProto:
    """A tensor of the type with this number that has one value, or none, in a field, and claims the shape."""
    tensor = TensorProto(dtype=number)
    if field == CONTENT:
        tensor.tensor_content = b"\0" * 8
    elif field:
        values = getattr(tensor, field)
        text = field in ("string_val", "float8_val")
        if field == "float8_val":
            tensor.float8_val = b"x"
        elif field in ("resource_handle_val", "variant_val"):
            values.add()
        else:
            values.append(b"x" if text else 1)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(("name", "signature"), [("post", ""), ("posts_input", "vectors")])
def test_a_shape_is_compared_with_what_was_sent_before_anything_is_made(server, name, signature):
    """For each type of tensor, whichever field has its value."""
    service = grpc_service.Service(server.versions)
    each = itertools.product([None, CONTENT, *VALUES], types_pb2.DataType.values(), CLAIMS)

    async def predict_each() -> None:
        for field, number, shape in each:
            with pytest.raises(Refused) as refused:
                await service.Predict(request_of(claiming(number, field, shape), name, signature), None)
            assert refused.value.status in (400, 413), (field, number, shape)

    tracemalloc.start()
    try:
        asyncio.run(predict_each())
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", CLAIMS, ids=str)
def test_a_claimed_shape_is_refused_over_the_wire(server, caplog, shape):
    request = request_of(claiming(types_pb2.DT_STRING, "string_val", shape))
    status, sentence = server.refused(f"{PREDICTION}/Predict", request.SerializeToString())
    assert status == "INVALID_ARGUMENT"
    assert sentence.startswith("the input post cannot be read: its shape")
    assert caplog.records == []


def test_tensors_that_say_what_they_are_are_read():
    for number, kind in tensors.KINDS.items():
        dtype = tf.dtypes.as_dtype(number)
        assert dtype.name == kind.name
        array = np.array([[1, 2], [3, 4]], kind.numpy) if dtype != tf.string else np.array([b"a", b"bc"], object)
        for tensor in (tf.make_tensor_proto(array), tf.make_tensor_proto(array[:1]), tf.make_tensor_proto(array[:0])):
            read = tensors.to_array(tensor)
            assert tensors.shape_of(tensor) == list(read.shape)
            assert (read == array[: len(read)]).all()
        by_values = TensorProto(dtype=dtype.as_datatype_enum)
        value = b"a" if dtype == tf.string else 1
        getattr(by_values, kind.field).append(value)
        assert tensors.shape_of(by_values) == []
        by_values.tensor_shape.dim.add(size=1)
        assert tensors.to_array(by_values).shape == (1,)


MANY = 200_000


def many_sizes() -> PredictRequest:
    request = request_of(TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"x"]))
    request.inputs["post"].tensor_shape.dim.extend([TensorShapeProto.Dim(size=1)] * MANY)
    return request


def many_inputs() -> PredictRequest:
    request = request_of()
    for number in range(MANY // 10):
        request.inputs[str(number)].dtype = types_pb2.DT_STRING
    return request


def with_values(change: str, *values: object) -> PredictRequest:
    request = request_of(tf.make_tensor_proto([b"a"]))
    getattr(request, change).extend(values)
    return request


def with_name(**names: str) -> PredictRequest:
    request = request_of(tf.make_tensor_proto([b"a"]))
    for field, name in names.items():
        setattr(request.model_spec, field, name)
    return request


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (many_sizes(), "its shape has 200,000 sizes"),
        (many_inputs(), "send 'post' only"),
        (request_of(tf.make_tensor_proto([b"a"] * 1001)), "1,001 entries: send at most 1,000"),
        (request_of(tf.make_tensor_proto([b"a" * 100_001])), "100,001 bytes"),
        (with_values("output_filter", *["x" * MIB] * 2), "there is no output 'xxx"),
        (with_values("output_filter", *map(str, range(MANY))), "there is no output '0'"),
        (with_name(name="x" * MIB), "there is no model 'xxx"),
        (with_name(signature_name="x" * MIB), "the signature 'xxx"),
        (with_name(version_label="\N{GRINNING FACE}" * MIB), "there is no label"),
    ],
    ids=["sizes", "inputs", "posts", "bytes", "long output", "outputs", "model", "signature", "label"],
)
def test_what_is_long_or_many_is_refused_in_a_short_sentence(server, caplog, request_, sentence):
    status, said = server.refused(f"{PREDICTION}/Predict", request_.SerializeToString())
    assert status in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert sentence in said
    assert len(said) < 700
    assert caplog.records == []


def test_an_output_that_is_named_again_and_again_is_made_once(server, monkeypatch):
    made = list[int]()
    real = tensors.to_proto
    monkeypatch.setattr(tensors, "to_proto", lambda values: made.append(len(values)) or real(values))
    request = with_values("output_filter", *["probabilities", "tag"] * 4000)
    response = prediction_service_pb2_grpc.PredictionServiceStub(server.channel).Predict(request, metadata=KNOWN)
    assert set(response.outputs) == {"probabilities", "tag"}
    assert made == [1, 1]


# What is sent again and again, or is not of the method


def examples(count: int, text: bytes, *, common: bytes = b"") -> bytes:
    request = ClassificationRequest()
    request.model_spec.name = MODEL
    list_ = request.input.example_list_with_context if common else request.input.example_list
    if common:
        list_.context.features.feature["post"].bytes_list.value.append(common)
    for _ in range(count):
        example = list_.examples.add()
        if text:
            example.features.feature["post"].bytes_list.value.append(text)
    return request.SerializeToString()


def test_examples_are_counted_before_they_are_read_and_a_common_text_counts_for_each(server):
    refused = lambda *given, **common: server.refused(f"{PREDICTION}/Classify", examples(*given, **common))  # noqa: E731
    assert refused(MANY, b"")[1] == "input has 200,000 entries: send at most 1,000 in a request"
    assert refused(2, b"a" * 100_001)[1].startswith("input has 100,001 bytes")
    assert refused(100, b"", common=b"a" * 100_000)[1] == "input has more than 8,388,608 bytes of text: send less"
    assert server.call(f"{PREDICTION}/Classify", examples(3, b"", common=b"a java list"))


@pytest.mark.parametrize("name", ["", "classify", "serving_default", "vectors", "nothing"])
def test_classify_answers_its_own_signature_only(server, name):
    request = ClassificationRequest.FromString(examples(1, b"a java list"))
    request.model_spec.signature_name = name
    if name in ("", "classify"):
        assert server.call(f"{PREDICTION}/Classify", request.SerializeToString())
        return
    status, sentence = server.refused(f"{PREDICTION}/Classify", request.SerializeToString())
    assert (status, sentence) == (
        "INVALID_ARGUMENT",
        f"the signature {name!r} is not answered: ask classify",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 3e38, -3e38])
def test_a_vector_whose_answer_would_not_be_finite_is_refused(server, value):
    vectors = np.full((2, server.versions.vector_size), value)
    for dtype in (np.float64, np.float32):
        with np.errstate(over="ignore"):
            tensor = tf.make_tensor_proto(vectors.astype(dtype))
        request = request_of(tensor, FEATURE, VECTORS)
        status, sentence = server.refused(f"{PREDICTION}/Predict", request.SerializeToString())
        assert (status, "finite" in sentence) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("path", sorted(ANSWERED))
def test_a_message_that_is_none_of_the_methods_is_refused(server, path):
    status, sentence = server.refused(path, b"\xff\xff\xff")
    assert (status, sentence) == ("INVALID_ARGUMENT", f"the message cannot be read: send the request that {path} takes")


def test_messages_are_limited_packed_or_not_and_so_is_metadata(server):
    large = request_of(tf.make_tensor_proto([b"a" * 99_000] * 95)).SerializeToString()
    for packing in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        assert server.refused(f"{PREDICTION}/Predict", large, compression=packing)[0] == "RESOURCE_EXHAUSTED"
    small = request_of(tf.make_tensor_proto([b"a"])).SerializeToString()
    assert server.call(f"{PREDICTION}/Predict", small, compression=grpc.Compression.Gzip)
    metadata = (*KNOWN, ("more", "x" * 100_000))
    assert server.refused(f"{PREDICTION}/Predict", small, metadata=metadata)[0] == "RESOURCE_EXHAUSTED"
    assert server.call(f"{PREDICTION}/Predict", small)


# Calls that end otherwise than by an answer


class Message:
    """A request that can be watched, unlike those of protocol buffers."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        ALIVE.add(self)


ALIVE = weakref.WeakSet[Message]()


def slow(started: threading.Event) -> grpc.GenericRpcHandler:
    """A service whose method Wait never answers, Refuse refuses, and Fail fails."""

    async def wait(request: Message, context: object) -> None:
        started.set()
        await asyncio.Event().wait()

    async def refuse(request: Message, context: object) -> None:
        raise Refused(413, f"{len(request.content)} bytes are too many")

    async def fail(request: Message, context: object) -> None:
        raise ZeroDivisionError(len(request.content))

    methods = {"Wait": wait, "Refuse": refuse, "Fail": fail}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method, Message) for name, method in methods.items()}
    return grpc.method_handlers_generic_handler("Slow", handlers)


@pytest.fixture
def slow_server(tmp_path) -> Iterator[tuple[Running, threading.Event]]:
    started = threading.Event()
    with running(Store(str(tmp_path)), slow(started)) as server:
        yield server, started


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
def test_a_call_that_is_given_up_is_not_counted_as_answered_and_is_no_error(slow_server, caplog, way):
    server, started = slow_server
    call = server.channel.unary_unary("/Slow/Wait").future(b"", metadata=KNOWN, timeout=1 if way == "deadline" else 60)
    assert started.wait(60)
    if way == "cancelled":
        call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    wait_for("the call is counted", server.counts)
    assert set(server.counts()) <= ({"DEADLINE_EXCEEDED", "CANCELLED"} if way == "deadline" else {"CANCELLED"})
    assert caplog.records == []


def test_what_was_refused_is_forgotten_at_once(slow_server):
    """A message of 8 MiB may take 200 MiB, and full collections are rare in a server."""
    server, _ = slow_server
    gc.collect()
    gc.disable()
    try:
        assert server.refused("/Slow/Refuse", b"x")[0] == "INVALID_ARGUMENT"
        wait_for("the request is gone", lambda: not ALIVE)
    finally:
        gc.enable()


def test_a_failure_is_one_error_in_the_log_and_one_sentence(slow_server, caplog):
    server, _ = slow_server
    assert server.refused("/Slow/Fail", b"") == ("INTERNAL", "the server failed (ZeroDivisionError): its log says more")
    [record] = caplog.records
    assert record.exc_info


def held(server: Running, channel: grpc.Channel) -> tuple[threading.Event, grpc.Future]:
    """A call that sends its metadata and no message until the event is set."""
    release = threading.Event()

    def messages() -> Iterator[bytes]:
        release.wait(60)
        yield from ()

    return release, channel.stream_unary(f"{PREDICTION}/Predict").future(messages(), metadata=KNOWN, timeout=60)


def test_a_call_must_send_its_message_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_guard, "RECEIVE_SECONDS", 0.2)
    with running(Store(str(tmp_path))) as server:
        release, call = held(server, server.channel)
        with pytest.raises(grpc.RpcError, match="no message came within") as refused:
            call.result()
        assert refused.value.code().name == "DEADLINE_EXCEEDED"
        release.set()
        assert list(server.counts()) == ["DEADLINE_EXCEEDED"]


def test_the_number_of_calls_at_once_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_guard, "CALLS", 3)
    with running(Store(str(tmp_path))) as server:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options) as other:
            calls = [held(server, other) for _ in range(3)]
            sees = lambda: server.refused(f"{PREDICTION}/Predict", b"")[0]  # noqa: E731
            wait_for("there are too many", lambda: sees() == "RESOURCE_EXHAUSTED")
            for release, call in calls:
                release.set()
                assert call.exception().code().name == "INVALID_ARGUMENT"
            wait_for("there is room again", lambda: sees() == "NOT_FOUND")


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client begins with: its preface, and an empty frame of settings."""


@pytest.mark.parametrize(("limit", "says"), [("HANDSHAKE_MS", b""), ("IDLE_MS", PREFACE)])
def test_a_connection_that_says_nothing_is_closed(tmp_path, monkeypatch, limit, says):
    monkeypatch.setattr(grpc_guard, limit, 300)
    with running(Store(str(tmp_path))) as server:
        host, _, port = server.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=9) as connection:
            connection.sendall(says)
            while connection.recv(1000):
                pass  # until the server closes it
