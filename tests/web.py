"""A web server on this machine that serves bytes from memory, with ranges, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    method: str
    path: str
    range: str | None
    sent: int


class Site:
    """`files` by path; `faults` by path, one used up by each GET; `log` of what was asked and how much went out."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.faults: dict[str, list[str]] = {}
        self.log: list[Asked] = []
        self.stalled, self.over = threading.Event(), threading.Event()
        self.url = ""

    def etag(self, path: str) -> str:
        return self.etags.get(path, f'"{hashlib.md5(self.files[path]).hexdigest()}"')

    def gets(self, path: str) -> list[Asked]:
        return [asked for asked in self.log if (asked.method, asked.path) == ("GET", path)]


@contextmanager
def serving():
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer("HEAD", "")

        def do_GET(self):
            faults = site.faults.get(self.path) or [""]
            self.answer("GET", faults.pop(0))

        def answer(self, method: str, fault: str):
            asked, code, extra = self.headers.get("Range"), 200, {}
            if fault == "other":  # the file changes between two tries
                site.files[self.path] = site.files[self.path][::-1]
            if fault.isdecimal() or self.path not in site.files:
                code, body, start = int(fault or 404), b"<Error/>", 0
            elif fault == "html":
                body, start, extra = b"\n <!DOCTYPE html><p>Log in", 0, {"Content-Type": "application/x-tar"}
            elif fault == "html type":
                body, start, extra = b"Log in", 0, {"Content-Type": "text/html; charset=utf-8"}
            else:
                body, start = site.files[self.path], 0
                same = self.headers.get("If-Range", site.etag(self.path)) == site.etag(self.path)
                if asked and same and fault != "no range":
                    start, code = int(asked.removeprefix("bytes=").removesuffix("-")), 206
                    first = start + 1 if fault == "wrong range" else start
                    extra = {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
                if fault == "corrupt":
                    middle = (start + len(body)) // 2
                    body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
                extra["ETag"] = site.etag(self.path)
            body = body[start:]
            length = {"long": len(body) + 1000, "short": len(body) - 1000}.get(fault, len(body))
            cut = len(body) // 2 if fault in ("stall", "close", "reset") else length
            sent = 0 if method == "HEAD" else len(body[:cut])
            # Before the answer: whoever has got it may look at the log.
            site.log.append(Asked(method, self.path, asked, sent))
            self.send_response(code)
            for key, value in extra.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if method == "HEAD":
                return
            try:
                self.wfile.write(body[:cut])
            except OSError:  # the other side has had enough
                self.close_connection = True
                return
            if fault == "stall":
                site.stalled.set()
                site.over.wait(20)
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if fault in ("stall", "close", "reset", "long"):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
