"""Nodes that meet and end together, over real connections on one machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from prefopt import handshake
from prefopt.company import Company, Ending, verdict
from prefopt.config import compose
from prefopt.errors import RunError, UserError
from prefopt.handshake import Listener, Peer, ask_whether_shared, connect, greeting, hang_up, unlike, wait_for_start
from prefopt.nodes import Meeting
from prefopt.rank_group import RankGroup
from prefopt.ranks import World

WORLD = World("cpu", 3, num_nodes=3)


def hello(node: int, **changed: Any) -> dict[str, Any]:
    """What a node of a run says of itself."""
    return {**greeting(compose(["recipe=quickstart"]), WORLD.recorded(), node), "job": "7.0", **changed}


def meeting(*ports: int) -> Meeting:
    return Meeting("127.0.0.1", ports, is_stated=False)


def two_ports() -> tuple[int, int]:
    """Two ports that are free now."""
    with ExitStack() as opened:
        probes = [opened.enter_context(socket.create_server(("", 0))) for _ in range(2)]
        first, second = (int(probe.getsockname()[1]) for probe in probes)
    return first, second


def aside(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start work in a thread; calling the result waits for it, and gives or raises what came of it."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(30)
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    return result


def meet(*others: dict[str, Any], minutes: float = 0.2) -> tuple[Callable[[], Any], list[Callable[[], Any]]]:
    """Node 0 and nodes that greet it so."""
    place = meeting(*two_ports())
    listener = Listener(place)
    head = aside(lambda: listener.gather(hello(0), len(others) + 1, minutes))
    return head, [aside(lambda other=other: connect(place, other, minutes, lambda line: None)) for other in others]


@pytest.fixture
def three() -> Iterator[tuple[list[Peer], list[Peer]]]:
    """Node 0's connections to nodes 1 and 2, and theirs to it."""
    head, nodes = meet(hello(1), hello(2))
    to_others, to_head = head(), [node() for node in nodes]
    yield to_others, to_head
    for peer in [*to_others, *to_head]:
        peer.close()


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nodes_are_known_by_number_and_host(three: tuple[list[Peer], list[Peer]]) -> None:
    to_others, to_head = three
    host = socket.gethostname()
    assert [peer.name for peer in to_others] == [f"node 1 ({host})", f"node 2 ({host})"]
    assert {peer.name for peer in to_head} == {f"node 0 ({host})"}


def test_another_job_at_the_same_port_leads_to_the_next() -> None:
    place = meeting(*two_ports())
    theirs, ours = Listener(place), Listener(place)
    assert (theirs.port, ours.port) == place.ports
    waiting = aside(lambda: theirs.gather(hello(0, job="8.0"), 2, 0.03))
    head = aside(lambda: ours.gather(hello(0), 2, 0.2))
    node = connect(place, hello(1), 0.2, lambda line: None)
    assert [peer.name for peer in head()] == [f"node 1 ({socket.gethostname()})"]
    node.close()
    with pytest.raises(RunError, match="node 1 did not come"):
        waiting()


def test_somebody_else_who_knocks_is_turned_away() -> None:
    place = meeting(*two_ports())
    listener = Listener(place)
    head = aside(lambda: listener.gather(hello(0), 2, 0.2))
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b""):
        with socket.create_connection((place.host, listener.port)) as stranger:
            stranger.sendall(words)
    node = connect(place, hello(1), 0.2, lambda line: None)
    assert len(head()) == 1
    node.close()


def test_two_commands_for_one_node_are_refused() -> None:
    head, nodes = meet(hello(1), hello(1))
    with pytest.raises(UserError, match=r"node 1 \(.*\) is there already"):
        head()
    ends = []
    for node in nodes:
        try:
            ends.append(wait_for_start(node(), Path())["said"])
        except UserError as error:
            ends.append(error.message)
    assert all("is there already" in said for said in ends)


def test_a_node_that_the_run_has_not_is_refused() -> None:
    head, (node,) = meet(hello(4))
    for end in (head, node):
        with pytest.raises(UserError, match="is none of the 2 nodes"):
            end()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"versions": {"torch": "9"}}, "has torch 9 and not 1 as node 0 (a) has"),
        ({"versions": {}}, "has torch absent and not 1"),
        ({"code": "y"}, "has other code of prefopt"),
        ({"settings": {"optim": {"lr": 2}}}, "other settings than node 0 (there -> node 0): optim.lr: 2 -> 1"),
        ({"world": {"num_processes": 4}}, "num_processes: 4 -> 2"),
        ({}, ""),
    ],
)
def test_what_differs_between_nodes_is_said(changed: dict[str, Any], said: str) -> None:
    own = {"node": 0, "host": "a", "versions": {"torch": "1"}, "code": "x", "settings": {"optim": {"lr": 1}}}
    own["world"] = {"num_processes": 2}
    found = unlike(own, {**own, "node": 1, "host": "b", **changed})
    assert said in found
    assert bool(found) == bool(changed)


def test_every_node_must_see_the_folder_and_what_the_ranks_read(
    three: tuple[list[Peer], list[Peer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "SHARED_WITHIN", 0.5)
    to_others, to_head = three
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    ends = [aside(lambda: wait_for_start(to_head[0], folder)), aside(lambda: wait_for_start(to_head[1], elsewhere))]
    with pytest.raises(UserError, match=rf"node 2 .* does not see {folder}: it must be on a file system that all"):
        ask_whether_shared(to_others, folder, [])
    with pytest.raises(UserError, match=rf"node 1 .* does not see {tmp_path / 'model'}"):
        ask_whether_shared(to_others[:1], folder, [tmp_path / "model"])
    assert not any(folder.iterdir())
    hang_up(to_others, UserError("no", "yes"))
    assert [end()["said"] for end in ends] == ["no", "no"]


def test_a_node_that_goes_away_takes_all_others_along(three: tuple[list[Peer], list[Peer]]) -> None:
    to_others, to_head = three
    groups = [RankGroup(), RankGroup()]
    head, last = Company(to_others, is_head=True), Company(to_head[1:], is_head=False)
    head.watch(groups[0])
    last.watch(groups[1])
    to_head[0].close()
    why = f"node 1 ({socket.gethostname()}) went away"
    until(lambda: all(group.ended_for == why for group in groups))
    ends = aside(lambda: last.close(Ending(1)))
    assert head.close(Ending(1)) == 1
    assert ends() == 1


@pytest.mark.parametrize(
    ("own", "first", "second", "code"),
    [
        (Ending(0, is_sure=True), Ending(0, is_sure=True), Ending(1), 0),  # its launcher stumbled behind the result
        (Ending(1), Ending(75, is_sure=True), Ending(1), 75),
        (Ending(1), Ending(1), Ending(137), 1),
    ],
)
def test_all_nodes_end_with_one_exit_code(
    own: Ending, first: Ending, second: Ending, code: int, three: tuple[list[Peer], list[Peer]]
) -> None:
    to_others, to_head = three
    companies = [Company(to_others, is_head=True), *(Company([peer], is_head=False) for peer in to_head)]
    for company in companies:
        company.watch(RankGroup())
    ends = [aside(lambda c=c, e=e: c.close(e)) for c, e in zip(companies, (own, first, second))]
    assert [end() for end in ends] == [code] * 3


def test_a_failure_is_never_a_success() -> None:
    assert verdict([Ending(0), Ending(0), Ending(9)]) == 9
    assert verdict([Ending(0), Ending(0)]) == 0
