"""A real S3 server (moto's) on loopback for tests, and a proxy before it that throttles, drops and stalls requests; knows no run."""

import http.client
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pytest

HOST = "127.0.0.1"
PATIENCE = 60.0
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
OWN = ("connection", "date", "expect", "transfer-encoding")  # headers of a connection, not of what is asked or answered
# As long and as odd as Amazon's.
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7CANARYID",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCANARYSECRET",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEBY/CANARY//SESSION+TOKEN==",
}


@dataclass(frozen=True)
class Store:
    """An endpoint and a bucket of it."""

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """All that a process needs to use it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}"

    def behind(self, endpoint: str) -> "Store":
        """The same bucket through a proxy."""
        return replace(self, endpoint=endpoint)

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """This process's own store from now on."""
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def names(self, folder: str = "") -> list[str]:
        """Every object under the folder."""
        place = f"{self.bucket}/{folder}".rstrip("/")
        found = self._client().get_file_info(pafs.FileSelector(place, recursive=True, allow_not_found=True))
        return sorted(info.path.removeprefix(f"{place}/") for info in found if info.type == pafs.FileType.File)

    def contents(self, folder: str = "") -> dict[str, bytes]:
        """Every object under the folder with its bytes."""
        client, place = self._client(), f"{self.bucket}/{folder}".rstrip("/")
        return {name: client.open_input_stream(f"{place}/{name}", compression=None).read() for name in self.names(folder)}

    def put(self, name: str, data: bytes) -> str:
        with self._client().open_output_stream(f"{self.bucket}/{name}", compression=None) as stream:
            stream.write(data)
        return f"{self.address}/{name}"

    def _client(self) -> pafs.S3FileSystem:
        key, secret, token = KEYS.values()
        url = urlsplit(self.endpoint)
        return pafs.S3FileSystem(
            access_key=key, secret_key=secret, session_token=token, region="us-east-1", scheme=url.scheme, endpoint_override=url.netloc
        )


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


@contextmanager
def server(**environment: str) -> Iterator[str]:
    """moto as a process of its own; gives its endpoint."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(port):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex((HOST, port)) == 0


def made(endpoint: str) -> Store:
    """A new bucket."""
    bucket = f"bucket-{secrets.token_hex(4)}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=PATIENCE):
        return Store(endpoint, bucket)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """One server for all tests."""
    with server() as found:
        yield found


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket of the test's own, which this process uses by its environment."""
    found = made(endpoint)
    found.use(monkeypatch)
    return found


@dataclass
class Faults:
    """What the proxy does to requests.

    Args:
        share: of requests that go wrong.
        kinds: how, in turn by chance: throttle (503 before it is done), drop (the connection, before it is done), lose (the connection,
            after it is done), stall (no answer).
        seed: of the chance.
        only: requests that may go wrong, by method and path.
    """

    share: float
    kinds: tuple[str, ...] = ("throttle", "drop", "lose")
    seed: int = 0
    only: Callable[[str, str], bool] = lambda method, path: True
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def next(self, method: str, path: str) -> str:
        """What happens to this request: one of `kinds`, or pass."""
        with self.lock:
            kind = "pass"
            if self.only(method, path) and self.chance.random() < self.share:
                kind = self.chance.choice(self.kinds)
            self.counts[kind] += 1
            return kind


class Handler(BaseHTTPRequestHandler):
    """Passes one connection's requests on to the endpoint, but for the faults; a request that is to stall waits until all is over."""

    protocol_version = "HTTP/1.1"

    def __init__(self, endpoint: str, faults: Faults, over: threading.Event, *connection: Any) -> None:
        self.endpoint, self.faults, self.over = endpoint, faults, over
        # Answers the requests, and returns when they are done.
        super().__init__(*connection)

    def handle_any(self) -> None:
        body = self.body()
        kind = self.faults.next(self.command, self.path)
        if kind == "stall":
            self.over.wait()
        if kind in ("drop", "stall"):
            self.close_connection = True
        elif kind == "throttle":
            self.answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        else:
            self.pass_on(body, lose=kind == "lose")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def pass_on(self, body: bytes, lose: bool) -> None:
        upstream = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=PATIENCE)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
        upstream.request(self.command, self.path, body=body, headers=headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if lose:
            self.close_connection = True
            return
        # Of a HEAD the length is that of what is not sent.
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in OWN]
        self.answer(answer.status, kept, data)

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response(status)
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers = [*headers, ("Content-Length", str(len(data)))]
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """A server on loopback that passes requests on to the endpoint, but for the faults; gives its own endpoint."""
    over = threading.Event()
    found = ThreadingHTTPServer((HOST, 0), partial(Handler, endpoint, faults, over))
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{found.server_port}"
    finally:
        over.set()
        found.shutdown()
        found.server_close()
        thread.join()
