"""Nodes while their ranks run: whoever goes away takes the others along, and all end with the same exit code."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from prefopt.handshake import Peer
from prefopt.rank_group import RankGroup

GOOD = (0, 75)
"""Exit codes that the ranks of all nodes agree on: done, and stopped by a signal after all was saved."""
LAST_WORDS = 60.0
"""Seconds in which all nodes end once the ranks of one have."""


@dataclass(frozen=True)
class Ending:
    """How a node's ranks ended. is_sure: the code is the ranks' own, not their launcher's. said: why, in a line."""

    code: int
    is_sure: bool = False
    said: str = ""


def verdict(endings: list[Ending]) -> int:
    """The exit code of all nodes, node 0 first: what a rank wrote down, else the first failure, else 0."""
    for ending in endings:
        if ending.is_sure:
            return ending.code
    return next((ending.code for ending in endings if ending.code), 0)


class Company:
    """The other nodes as one of them sees them: node 0 sees all, the others see node 0."""

    def __init__(self, peers: list[Peer], is_head: bool) -> None:
        self.peers = peers
        self.is_head = is_head
        self._endings: dict[str, Ending] = {}
        self._verdict: int | None = None
        self._changed = threading.Condition()

    def watch(self, ranks: RankGroup) -> None:
        """From now on the ranks of this node end where another node's have failed."""
        for peer in self.peers:
            threading.Thread(target=self._listen, args=(peer, ranks), daemon=True).start()

    def _listen(self, peer: Peer, ranks: RankGroup) -> None:
        while True:
            message = peer.receive()
            assert message is not None
            if message["what"] == "lost":  # node 0 passes on what only it can see
                ranks.end(message["why"])
                continue
            if message["what"] == "verdict":
                with self._changed:
                    self._verdict = message["code"]
                    self._changed.notify_all()
                return
            ending, why = Ending(1), f"{peer.name} went away"
            if message["what"] == "ended":
                ending = Ending(message["code"], message["is_sure"], message["said"])
                why = "" if ending.code in GOOD else _told(peer.name, ending)
            if why:
                self._pass_on(why, but=peer)
                ranks.end(why)
            with self._changed:
                self._endings[peer.name] = ending
                self._changed.notify_all()
            return

    def _pass_on(self, why: str, but: Peer | None = None) -> None:
        for peer in self.peers if self.is_head else []:
            if peer is not but:
                peer.send(what="lost", why=why)

    def close(self, own: Ending) -> int:
        """Tell the others how the ranks of this node ended, and agree on the exit code."""
        return self._conclude(own) if self.is_head else self._report(own)

    def _conclude(self, own: Ending) -> int:
        if own.code not in GOOD:
            self._pass_on(_told("node 0", own))
        with self._changed:
            self._changed.wait_for(lambda: len(self._endings) == len(self.peers), LAST_WORDS)
            code = verdict([own, *(self._endings.get(peer.name, Ending(1)) for peer in self.peers)])
        for peer in self.peers:
            peer.send(what="verdict", code=code)
            peer.close()
        return code

    def _report(self, own: Ending) -> int:
        (head,) = self.peers
        head.send(what="ended", code=own.code, is_sure=own.is_sure, said=own.said)
        with self._changed:
            self._changed.wait_for(lambda: self._verdict is not None or bool(self._endings), 2 * LAST_WORDS)
            code = self._verdict
        head.close()
        return (own.code or 1) if code is None else code


def _told(who: str, ending: Ending) -> str:
    return f"{who} ended with exit code {ending.code}" + (f": {ending.said}" if ending.said else "")
