"""Several nodes, one run: they meet before anything starts, and know of each other while the ranks run.

The same command runs on each node. Node 0 listens; the others connect, say what they are made of, and wait for it. What
would give a run that is quietly wrong - another version of a package on one node, a run folder that is not the same
folder - is refused there, in one sentence, on all nodes. The connections stay open: a node whose command dies is missed
at once, which torch's launcher does in minutes. One JSON object a line, over TCP; standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefopt.config import deciding
from prefopt.errors import RunError, UserError
from prefopt.manifest import differences, git_state, package_versions
from prefopt.nodes import Meeting
from prefopt.settings import RunSettings

GONE: dict[str, Any] = {"what": "gone"}
"""Stands in a node's messages for the end of its connection."""
SHARED_WITHIN = 5.0
"""Seconds in which a file that node 0 wrote must be seen by the others: file systems of a cluster need some."""


def greeting(run: RunSettings, world: Mapping[str, Any], node_rank: int) -> dict[str, Any]:
    """What a node says of itself. job: two jobs of one machine may meet at neighbouring ports."""
    return {
        "what": "hello",
        "job": f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_STEP_ID', '')}",
        "node": node_rank,
        "host": socket.gethostname(),
        "settings": deciding(run),
        "world": dict(world),
        "versions": {"python": platform.python_version(), **package_versions()},
        "code": _own_code(),
        "git": git_state(),
    }


def unlike(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why a node cannot run beside node 0, whose greeting is `own`; empty where it can."""
    who = f"node {other['node']} ({other['host']})"
    here, there = own["versions"], other["versions"]
    found = [
        f"{name} {there.get(name, 'absent')} and not {here.get(name, 'absent')}"
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    ]
    if found:
        return f"{who} has {', '.join(found)} as node 0 ({own['host']}) has"
    if own["code"] != other["code"]:
        return f"{who} has other code of prefopt {here.get('prefopt', '')} than node 0 ({own['host']})"
    if said := differences(other["settings"], own["settings"]) or differences(other["world"], own["world"]):
        return f"{who} was started with other settings than node 0 (there -> node 0): {', '.join(map(str, said))}"
    return ""


class Peer:
    """One connection: what comes is read by a thread of its own and waits in a queue."""

    def __init__(self, connection: socket.socket) -> None:
        self.name = "a node"
        self._socket = connection
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        _notice_dead_hosts(connection)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        # What breaks, or speaks another language, is as good as gone.
        with suppress(OSError, ValueError), self._socket.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError("not one of us")
                self._messages.put(message)
        self._messages.put(GONE)

    def send(self, **message: Any) -> None:
        """Say something; one that is gone is noticed where it is listened to."""
        with suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next message; None where none comes in time."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):  # the other one was quicker
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Listener:
    """Node 0's ear, from the moment on that the command has started."""

    def __init__(self, meeting: Meeting) -> None:
        """Listen.

        Raises: UserError where the port that was stated is in use; RunError where all of this job's are.
        """
        self.meeting = meeting
        for port in meeting.ports:
            try:
                self._socket = socket.create_server(("", port))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                continue
            self.port = port
            return
        if meeting.is_stated:
            said = f"launch.rendezvous={meeting.host}:{meeting.ports[0]}: node 0 cannot listen there ({reason})"
            raise UserError(said, "another port, the same on every node")
        raise RunError(f"none of the ports {meeting.ports[0]} to {meeting.ports[-1]} is free on this node ({reason})")

    def gather(self, own: Mapping[str, Any], num_nodes: int, minutes: float) -> list[Peer]:
        """The other nodes, in order, once all are there and like this one.

        Raises: UserError where one of them is not; RunError where one does not come in time, or leaves again.
        """
        deadline = time.monotonic() + 60 * minutes
        found: dict[int, Peer] = {}
        self._socket.settimeout(0.2)
        try:
            while len(found) < num_nodes - 1:
                if time.monotonic() > deadline:
                    missing = ", ".join(str(n) for n in range(1, num_nodes) if n not in found)
                    where = f"{self.meeting.host}:{self.port}"
                    raise RunError(
                        f"node {missing} did not come to {where} in {minutes:g} minutes",
                        "start the same command on every node; see that the port can be reached from there",
                    )
                for peer in found.values():
                    if peer.receive(0) is GONE:
                        raise RunError(f"{peer.name} went away while node 0 waited for the others")
                try:
                    connection, _ = self._socket.accept()
                except TimeoutError:
                    continue
                self._admit(Peer(connection), own, num_nodes, found)
        except BaseException as error:
            hang_up(found.values(), error)
            raise
        finally:
            self._socket.close()
        return [found[node] for node in sorted(found)]

    def _admit(self, peer: Peer, own: Mapping[str, Any], num_nodes: int, found: dict[int, Peer]) -> None:
        hello = peer.receive(10)
        if hello is None or hello.get("what") != "hello" or hello.get("job") != own["job"]:
            peer.send(what="stranger")
            peer.close()
            return
        node = int(hello["node"])
        peer.name = f"node {node} ({hello['host']})"
        why = ""
        if node in found:
            why = f"{peer.name} is there already: {found[node].name}"
        elif not 1 <= node < num_nodes:
            why = f"{peer.name} is none of the {num_nodes} nodes of this run"
        if why := why or unlike(own, hello):
            error = UserError(
                why, "every node needs the same environment and the same command, but for launch.node_rank"
            )
            hang_up([peer], error)
            raise error
        peer.send(what="welcome", host=own["host"])
        found[node] = peer


def hang_up(peers: Iterable[Peer], error: BaseException | None, code: int = 0) -> None:
    """Tell nodes that this start is over, and why."""
    said, hint = "", ""
    if error is not None:
        code = error.exit_code if isinstance(error, UserError) else 1
        said = error.message if isinstance(error, UserError) else "it was interrupted or failed"
        hint = error.hint if isinstance(error, UserError) else ""
    for peer in peers:
        peer.send(what="over", code=code, said=said, hint=hint)
        peer.close()


def ask_whether_shared(peers: list[Peer], folder: Path, others: list[Path]) -> None:
    """Make sure that every node sees `folder`, by a file that is put there, and the paths `others`.

    Raises: UserError naming the node and the folder.
    """
    token = folder / f".node-0-{secrets.token_hex(8)}"
    token.write_text("", encoding="utf-8")
    try:
        for peer in peers:
            peer.send(what="see", token=token.name, paths=[str(path) for path in others])
        for peer in peers:
            answer = peer.receive(SHARED_WITHIN + 60)
            if answer is None or answer.get("what") != "seen":
                raise RunError(f"{peer.name} went away before the ranks started")
            if answer["missing"]:
                what = str(folder.resolve()) if answer["missing"][0] == "" else answer["missing"][0]
                raise UserError(
                    f"{peer.name} does not see {what}: it must be on a file system that all nodes share",
                    "dir=FOLDER and data.cache_dir=FOLDER say where a run and its encoded data lie",
                )
    finally:
        token.unlink(missing_ok=True)


def connect(meeting: Meeting, own: Mapping[str, Any], minutes: float, say: Any) -> Peer:
    """The connection to node 0, once it has said that this node may come along.

    say: called with a line when node 0 is not there yet.

    Raises: UserError as node 0 says it; RunError where it does not answer in time.
    """
    deadline = time.monotonic() + 60 * minutes
    where = f"{meeting.host}:{meeting.ports[0]}"
    waited = False
    while True:
        for port in meeting.ports:
            peer, reason = _try(meeting.host, port, own)
            if peer is not None:
                return peer
        if time.monotonic() > deadline:
            raise RunError(
                f"node 0 does not answer at {where} ({reason}), for {minutes:g} minutes",
                "start the same command there; see launch.rendezvous and launch.node_rank",
            )
        if not waited:
            say(f"waits for node 0 at {where}, {minutes:g} minutes at most ({reason})")
            waited = True
        time.sleep(0.5)


def _try(host: str, port: int, own: Mapping[str, Any]) -> tuple[Peer | None, str]:
    try:
        connection = socket.create_connection((host, port), timeout=10)
    except OSError as error:
        return None, error.strerror or str(error)
    connection.settimeout(None)
    peer = Peer(connection)
    peer.send(**own)
    answer = peer.receive(30)
    if answer is not None and answer.get("what") == "welcome":
        peer.name = f"node 0 ({answer['host']})"
        return peer, ""
    peer.close()
    if answer is not None and answer.get("what") == "over":
        raise UserError(answer["said"], answer["hint"], answer["code"])
    return None, "somebody else answers there"


def wait_for_start(peer: Peer, folder: Path) -> dict[str, Any]:
    """Answer node 0's questions until it gives the start (`what` is go) or says that all is over.

    Raises: RunError where node 0 goes away.
    """
    while True:
        message = peer.receive()
        assert message is not None
        if message["what"] == "see":
            peer.send(what="seen", missing=_missing(folder / message["token"], message["paths"]))
        elif message is GONE:
            raise RunError(f"{peer.name} went away before the ranks started")
        else:
            return message


def _missing(token: Path, paths: list[str]) -> list[str]:
    """Which of the paths cannot be seen here; "" stands for the run folder."""
    deadline = time.monotonic() + SHARED_WITHIN
    while True:
        missing = ([] if token.exists() else [""]) + [path for path in paths if not Path(path).exists()]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.2)


def _own_code() -> str:
    """One number for all of prefopt's own files: a version alone does not tell two checkouts apart."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _notice_dead_hosts(connection: socket.socket) -> None:
    """A machine without power says no goodbye: half a minute of silence is one."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):  # not every system has all
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
