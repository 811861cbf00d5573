"""A bucket of moto's S3 server, in a process of its own, and a way to it that is slow or breaks off."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class BucketServer:
    port: int
    client: Any

    def uri(self, prefix: str, bucket: str = BUCKET, port: int = 0) -> str:
        options = f"endpoint_override=127.0.0.1:{port or self.port}&scheme=http&region=us-east-1"
        return f"s3://{bucket}/{prefix}?{options}"

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def keys(self, prefix: str) -> list[str]:
        """Without those that only mark a folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        found = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [key for key in found if not key.endswith("/")]


@contextmanager
def bucket_server(log):
    """Sets the keys of this process and its children while it lasts."""
    import boto3

    before = dict(os.environ)
    os.environ.update(KEYS)
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_open(port)
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield BucketServer(port, client)
    finally:
        server.kill()
        server.wait()
        os.environ.clear()
        os.environ.update(before)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until_open(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.05)


class SlowWay:
    """A port that leads to another. `carried`: bytes sent there; what exceeds `most` breaks the connection."""

    def __init__(self, port: int, *, pause_s: float = 0.0, most: float = float("inf")) -> None:
        self.carried = 0
        self._to, self.pause_s, self._most = port, pause_s, most
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _listen(self) -> None:
        while True:
            try:
                here, _ = self._door.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._carry, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(there, here, False), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, upwards: bool) -> None:
        try:
            while piece := one.recv(65536):
                if upwards:
                    self.carried += len(piece)
                    time.sleep(self.pause_s)
                    if self.carried > self._most:
                        break
                other.sendall(piece)
        except OSError:
            pass
        if upwards:
            one.close()
        other.close()
