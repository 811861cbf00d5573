"""Folders in a bucket of S3 or Google Cloud Storage, through pyarrow, which is imported where one is used.

`Address` is a URI in its parts, `InBucket` does for it what `actors.storage:Folder` promises.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from actors.shard_cache import ShardCache

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

T = TypeVar("T")
OPTIONS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}
ANONYMOUS = "anonymous"
CONNECT_S = 5.0
SILENCE_S = 10.0
ATTEMPTS = 3
GIVE_UP_S = 40.0
"""Longer than three attempts of SILENCE_S: Google's client itself would wait for two minutes."""
COPIED_AT_ONCE = 8 * 2**20
DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|INVALID_CLIENT_TOKEN|MISSING_AUTHENTICATION|TOKEN|HTTP status 40[13]"
    r"|OAuth2|UNAUTHENTICATED|PERMISSION_DENIED"
)
NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist", re.IGNORECASE)
SILENT = re.compile(r"NETWORK_CONNECTION|REQUEST_TIMEOUT|curlCode|UNAVAILABLE|DEADLINE_EXCEEDED|SLOW_DOWN")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or an AWS profile or role)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}


@dataclass(frozen=True)
class Address:
    """Where a folder lies. `user`: what stands before the `@`; never to be printed."""

    scheme: str
    user: str
    bucket: str
    prefix: str
    options: str

    @property
    def shown(self) -> str:
        user = f"{'***' if self.user != ANONYMOUS else self.user}@" if self.user else ""
        options = f"?{self.options}" if self.options else ""
        return f"{self.scheme}://{user}{self.bucket}/{quote(self.prefix)}".rstrip("/") + options

    def key(self, name: str = "") -> str:
        """As pyarrow calls it."""
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)


def address_of(uri: str) -> Address:
    """Raises ValueError, which never shows what stands before the bucket."""
    scheme = uri.partition(":")[0].lower()
    if scheme not in OPTIONS or not uri[len(scheme) :].startswith("://"):
        raise ValueError(f"storage: expected a folder, s3://bucket/... or gs://bucket/..., got {scheme}:...")
    parts = urlsplit(uri, allow_fragments=False)
    user, _, bucket = parts.netloc.rpartition("@")
    folders = [unquote(part) for part in parts.path.split("/") if part]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise ValueError(f"storage: expected {scheme}://bucket/..., found no name of a bucket after {scheme}://")
    if {".", ".."} & {*folders}:
        raise ValueError("storage: expected folders of the bucket, got '.' or '..' among them; leave them out")
    given = parse_qsl(parts.query, keep_blank_values=True)
    strange = [name for name, _ in given if name not in OPTIONS[scheme]]
    if strange or any("@" in value for _, value in given):
        known = ", ".join(OPTIONS[scheme])
        raise ValueError(
            f"storage: expected the options {known}, got {', '.join(strange) or 'one with an @'}; "
            f"keys are read from the environment: {CREDENTIALS[scheme]}"
        )
    return Address(scheme, user, bucket, "/".join(folders), parts.query)


@dataclass(frozen=True)
class InBucket:
    """Files that are put as one object each; the folders are what their keys begin with."""

    address: Address

    @property
    def shown(self) -> str:
        return self.address.shown

    def has(self, name: str) -> bool:
        with self._told():
            return self._files.get_file_info(self.address.key(name)).is_file

    def read(self, name: str) -> bytes:
        with self._told():
            return self._whole(name, lambda stream: stream.read())

    def write(self, name: str, content: bytes) -> None:
        # All is handed over before the stream is closed, and only closing it makes an object.
        with self._told(), self._files.open_output_stream(self.address.key(name)) as stream:
            stream.write(content)

    def local(self, name: str) -> str:
        cache = ShardCache.of_this_machine()
        with self._told():
            with self._open(name) as stream:
                size, place = stream.size(), cache.place(name, self.shown, *_version(stream))
            if not cache.has(place, size):
                with cache.aside(size) as aside:
                    version = self._whole(name, lambda stream: _copy(stream, aside))
                    place = cache.place(name, self.shown, *version)
                    cache.keep(aside, place)
        return str(place)

    def files(self) -> list[tuple[str, int, float]]:
        return [(one.base_name, one.size, one.mtime_ns / 1e9) for one in self._there() if one.is_file]

    def folders(self) -> list[str]:
        return [one.base_name for one in self._there() if not one.is_file]

    def remove(self, name: str) -> None:
        with self._told():
            try:
                self._files.delete_file(self.address.key(name))
            except FileNotFoundError:
                return

    def remove_all(self) -> None:
        with self._told():
            try:
                self._files.delete_dir(self.address.key())
            except FileNotFoundError:
                return

    def clean(self, older_than_s: float) -> None:
        """A writer that is killed leaves nothing that can be seen."""

    def _there(self) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        with self._told():
            return self._files.get_file_info(FileSelector(self.address.key(), allow_not_found=True))

    def arrow(self) -> tuple[str, FileSystem]:
        with self._told():
            return self.address.key(), self._files

    def _open(self, name: str) -> NativeFile:
        return self._files.open_input_file(self.address.key(name))

    def _whole(self, name: str, take: Callable[[NativeFile], T]) -> T:
        """What is taken from one version of a file: its length is asked for first, and it may be replaced meanwhile."""
        while True:
            with self._open(name) as stream:
                try:
                    taken = take(stream)
                except FileNotFoundError:  # Google's client asks for the version that it has opened
                    continue
                with self._open(name) as now:
                    if _version(now) == _version(stream):
                        return taken

    @property
    def _files(self) -> FileSystem:
        return _opened(replace(self.address, prefix=""))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _as_told(self.address, error) from error


def _version(stream: NativeFile) -> tuple[str, ...]:
    """What another content of the same name does not share."""
    described = stream.metadata()
    tags = [str(described[name]) for name in sorted(described) if name.lower() in ("etag", "last-modified")]
    return (str(stream.size()), *tags)


def _copy(stream: NativeFile, to: Path) -> tuple[str, ...]:
    with to.open("wb") as copy:
        while piece := stream.read(COPIED_AT_ONCE):
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    return _version(stream)


@lru_cache(maxsize=32)
def _opened(address: Address) -> FileSystem:
    """Once per process and bucket: raises ValueError where nobody answers in time, or there is no such bucket."""
    answer: Future[FileSystem] = Future()
    threading.Thread(target=_try, args=(answer, address), name="storage", daemon=True).start()
    try:
        return answer.result(GIVE_UP_S)
    except TimeoutError:
        raise _no_answer(address, f"nothing in {GIVE_UP_S:.0f} s") from None
    except OSError as error:
        raise _as_told(address, error) from error


def _try(answer: Future[FileSystem], address: Address) -> None:
    try:
        answer.set_result(_open_bucket(address))
    except BaseException as error:
        answer.set_exception(error)


def _open_bucket(address: Address) -> FileSystem:
    from pyarrow.fs import FileType

    files = _s3(address) if address.scheme == "s3" else _gs(address)
    try:
        if files.get_file_info(address.bucket).type == FileType.NotFound:
            raise _no_bucket(address)
    except OSError as error:
        # Who may use the objects of a bucket need not be allowed to look at the bucket itself.
        if not DENIED.search(str(error)):
            raise
    return files


def _s3(address: Address) -> FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    options = dict(parse_qsl(address.options))
    known = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    elsewhere = "endpoint_override" in options or "AWS_ENDPOINT_URL" in os.environ
    region = known or ("us-east-1" if elsewhere else resolve_s3_region(address.bucket))
    user, _, password = address.user.partition(":")
    return S3FileSystem(
        access_key=unquote(user) if password else None,
        secret_key=unquote(password) or None,
        anonymous=address.user == ANONYMOUS,
        connect_timeout=CONNECT_S,
        request_timeout=SILENCE_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,
        **{**options, "region": region},
    )


def _gs(address: Address) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    limit = timedelta(seconds=ATTEMPTS * SILENCE_S)
    anonymous = address.user == ANONYMOUS
    return GcsFileSystem(anonymous=anonymous, retry_time_limit=limit, **dict(parse_qsl(address.options)))


def _as_told(address: Address, error: OSError) -> Exception:
    """What a user can do something about as ValueError; anything else as it is."""
    text = str(error)
    found = re.search(r"AWS Error (\w+)|Status\((\w+)", text)
    reason = next((group for group in found.groups() if group), "") if found else type(error).__name__
    if DENIED.search(text):
        way_out = f"check {CREDENTIALS[address.scheme]} and what they allow"
        return ValueError(f"storage: expected access to {address.shown}, got {reason}; {way_out}")
    if NO_BUCKET.search(text):
        return _no_bucket(address)
    return _no_answer(address, reason) if SILENT.search(text) else error


def _no_bucket(address: Address) -> ValueError:
    return ValueError(
        f"storage: expected a bucket, there is no {address.bucket} (of {address.shown}); "
        "make it first, or check its name and the endpoint"
    )


def _no_answer(address: Address, reason: str) -> ValueError:
    return ValueError(
        f"storage: {address.shown}: expected an answer, got none ({reason}); check the network and the endpoint"
    )
