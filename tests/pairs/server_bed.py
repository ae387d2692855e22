"""A real HTTP server on this machine that speaks OpenAI's protocol, and fails by script."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place
from prefopt.records import Candidate, Example, Message


@dataclass
class Reply:
    """What the server sends. text: of an answer in the protocol; or raw bytes of any kind. hang: seconds before."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hang: float = 0.0
    finish: str | None = "stop"
    cut: bool = False


@dataclass
class Seen:
    """One request that came in; time: monotonic seconds."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    time: float


Script = Callable[[int, Seen], Reply | str]
"""The reply to request number n, from 0, or just its text. GETs (signs of life) are not counted."""


class FakeServer:
    """What came in, and where the server is."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.seen: list[Seen] = []
        self.probes = 0

    @property
    def questions(self) -> list[str]:
        """The last user turn, or the plain prompt, of every request."""
        return [s.body["messages"][-1]["content"] if "messages" in s.body else s.body["prompt"] for s in self.seen]


@contextmanager
def serving(script: Script, models: Reply | None = None) -> Iterator[FakeServer]:
    """A server until the block ends. models: the reply to GET /models."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            fake.probes += 1
            self._send(models or Reply(raw=b'{"data": []}'))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen = Seen(self.path, body, dict(self.headers), time.monotonic())
            with lock:
                number = len(fake.seen)
                fake.seen.append(seen)
            reply = script(number, seen)
            self._send(Reply(reply) if isinstance(reply, str) else reply)

        def _send(self, reply: Reply) -> None:
            time.sleep(reply.hang)
            raw = reply.raw
            if raw is None:
                said = {"message": {"role": "assistant", "content": reply.text}} if "chat" in self.path else {}
                choice = {"index": 0, "finish_reason": reply.finish, **(said or {"text": reply.text})}
                raw = json.dumps({"choices": [choice]}).encode()
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw) + 10 * reply.cut))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:
                pass  # the client has gone, as some tests want

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def scripted(*replies: Reply | str) -> Script:
    """The replies in their order, the last one for ever."""
    return lambda number, seen: replies[min(number, len(replies) - 1)]


def dead_url() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def place(notes: Path, said: list[str] | None = None, seed: int = 42) -> Place:
    """Where a stage works in a test. said: gets the lines that the stage prints."""
    return Place(PairsSettings(seed=seed), "cpu", str(notes), ([] if said is None else said).append)


def example(
    prompt: str | Sequence[tuple[str, str]], *texts: str, is_chat: bool = True, id: str = "rows.jsonl:1"
) -> Example:
    """A prompt (one user turn, or role and content of several) with candidates."""
    turns = (Message("user", prompt),) if isinstance(prompt, str) else tuple(Message(*turn) for turn in prompt)
    return Example(id, turns, tuple(Candidate(text) for text in texts), is_chat)
