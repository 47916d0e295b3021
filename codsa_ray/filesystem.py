"""Filesystem: what pyarrow opens behind an address, once per process, and what went wrong there in one line; knows no format."""

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from codsa_ray.errors import SettingError

T = TypeVar("T")

# Throttling (503 SlowDown), dropped connections and silence are tried again, each pause twice the one before: half a minute in all.
RETRIES = 10
PAUSE = 0.05  # seconds, the first
CONNECTING, SILENCE = 3.0, 10.0  # seconds: to connect, and without a byte before a request is given up
SETTINGS = ("region", "scheme", "endpoint_override")
# What pyarrow reads behind a ? of Google's, Microsoft's and Hadoop's addresses and is no secret. A name that is not here may be one.
OTHERS = (
    *("project_id", "retry_limit_seconds", "user", "replication", "buffer_size", "default_block_size", "kerb_ticket"),
    *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme", "enable_tls"),
    *("credential_kind", "tenant_id", "client_id", "background_writes"),
)
CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN"
# pyarrow reads an answer into as many bytes as it asked for. A refusal that is longer than that is no refusal to its own retries.
CUT = "Failed to flush response stream"
COMPRESSED = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}
LONGEST = 200  # characters of a filesystem's message
# As Amazon and its imitators name them; pyarrow passes them on in its message.
FORBIDDEN = re.compile(r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|ExpiredToken|InvalidToken|HTTP status 40[13]")


def is_remote(address: str) -> bool:
    """True when the address names an object store."""
    return "://" in address and not address.startswith("file://")


def shown(address: str) -> str:
    """The address without credentials, fit for logs."""
    if not is_remote(address):
        return address
    parts = urlsplit(address, allow_fragments=False)
    _, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"***@{host}" if at else host, query="").geturl()


def refuse_credentials(address: str) -> None:
    """Credentials come from the environment: an address is written into manifests, logs and process lists.

    Raises:
        SettingError: the address holds a key or a password, or a setting that may be one.
    """
    if not is_remote(address):
        return
    parts = urlsplit(address, allow_fragments=False)
    if parts.password is not None or (parts.scheme == "s3" and "@" in parts.netloc):
        raise SettingError("an address without credentials", shown(address), f"set {CREDENTIALS} in the environment instead")
    known = SETTINGS if parts.scheme == "s3" else (*SETTINGS, *OTHERS)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            # Without a value the name itself may be the secret.
            got = name if value else f"no setting behind {shown(address)}?"
            raise SettingError(f"{', '.join(known)} behind an address's ?", got, "leave it out; keys come from the environment")


def filesystem_of(address: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem and the path in it, which may be a glob.

    Raises:
        SettingError: an s3:// address with credentials or unknown settings.
        OSError, pyarrow.ArrowInvalid: it cannot be opened; see `told`.
    """
    if not is_remote(address):
        return pafs.LocalFileSystem(), os.path.abspath(address.removeprefix("file://"))
    parts = urlsplit(address, allow_fragments=False)
    if parts.scheme == "s3":
        refuse_credentials(address)
        filesystem, root = _s3(parts.netloc, parts.query, _endpoint()), parts.netloc
    else:
        # Only the root goes through pyarrow, which would refuse a glob as a URI.
        filesystem, root = _other(parts._replace(path="/").geturl())
    return filesystem, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}".rstrip("/")


def _endpoint() -> str:
    """Amazon's own where it is empty. Keys and region pyarrow takes from the environment, but not this."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


class _Carried(pafs.S3FileSystem):  # type: ignore[misc]
    """pyarrow's own, which leaves its retries behind on the way to another process."""

    def __init__(self, made_of: tuple[str, str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self.made_of = made_of

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return _s3, self.made_of


@lru_cache(maxsize=16)
def _s3(bucket: str, query: str, endpoint: str) -> pafs.S3FileSystem:
    asked = dict(parse_qsl(query))
    url = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    host = asked.get("endpoint_override") or url.netloc
    return _Carried(
        (bucket, query, endpoint),
        # A bucket of Amazon's knows its region; elsewhere AWS_REGION says it where it matters.
        region=asked.get("region") or (None if host else pafs.resolve_s3_region(bucket)),
        scheme=asked.get("scheme") or url.scheme,
        endpoint_override=host or None,
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=RETRIES),
        connect_timeout=CONNECTING,
        request_timeout=SILENCE,
        # A small file is one put; opening it at once would take three requests.
        allow_delayed_open=True,
    )


@lru_cache(maxsize=16)
def _other(root: str) -> tuple[pafs.FileSystem, str]:
    return pafs.FileSystem.from_uri(root)


def open_file(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    """The file for random access, its reads tried again."""
    file = filesystem.open_input_file(path)
    return file if isinstance(filesystem, pafs.LocalFileSystem) else pa.PythonFile(_Patient(file), "r")


def open_stream(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    """The file's bytes in order, decompressed by its name, its reads tried again."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        return filesystem.open_input_stream(path)
    codec = COMPRESSED.get(path.rpartition(".")[2].lower())
    return pa.CompressedInputStream(open_file(filesystem, path), codec) if codec else open_file(filesystem, path)


class _Patient:
    """A file of a store as pyarrow wants one from Python; tries again what pyarrow does not (see CUT)."""

    def __init__(self, file: pa.NativeFile) -> None:
        self.file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self.file.closed)

    def read(self, size: int | None = None) -> bytes:
        return bytes(_again(lambda: self.file.read(size)))

    def read_buffer(self, size: int | None = None) -> pa.Buffer:
        return _again(lambda: self.file.read_buffer(size))


def _again(read: Callable[[], T]) -> T:
    for attempt in range(RETRIES):
        try:
            return read()
        except OSError as error:
            if CUT not in str(error):
                raise
        time.sleep(PAUSE * 2**attempt)
    return read()


def told(error: BaseException, what: str, address: str) -> tuple[str, str, str]:
    """Wanted, got and do, of what a filesystem raised after all its retries.

    Args:
        what: was to be read or written, fit for logs.
        address: it lies at.
    """
    text = said(error, address)
    where = f"{what}: {text}"
    if "filesystem type" in text:
        return "an address pyarrow can open", where, "give a path, or s3://, gs://, hdfs:// ..."
    if "NO_SUCH_BUCKET" in text or ("Bucket" in text and "not found" in text):
        return "a bucket that is there", where, "make it, or check its name"
    if isinstance(error, PermissionError) or FORBIDDEN.search(text):
        return "credentials that may", where, f"set {CREDENTIALS}"
    return "a file within reach", where, "check the address, AWS_ENDPOINT_URL and the network; the same command goes on"


def said(error: BaseException, address: str) -> str:
    """The error's first line, without what the address holds of credentials."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    parts = urlsplit(address) if is_remote(address) else None
    for secret in (parts.netloc.rpartition("@")[0], parts.password, parts.username) if parts else ():
        for spelled in {secret, unquote(secret or "")} - {"", None}:
            text = text.replace(str(spelled), "***")
    return text[:LONGEST]
