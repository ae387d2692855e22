"""One process's share of the chunks: stage after stage, so that the models of one are held at a time.

Shards take chunks by turns, and the processes of a shard take the shard's by turns: each shard may have as many
processes as its machine has room for. A chunk that is there already is passed over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prefopt.errors import RunError
from prefopt.pairs.called import of_stage
from prefopt.pairs.folder import GENERATED, Folder, judgements
from prefopt.pairs.registry import make_stage
from prefopt.pairs.stages import Generated, Judged, Place
from prefopt.records import Example


@dataclass(frozen=True)
class Share:
    """What process `number` of the `of` processes of shard `shard` of `shards` does; all from 0."""

    shard: int
    shards: int
    number: int
    of: int

    def takes(self, chunk: int) -> bool:
        """Whether a chunk belongs to this process."""
        turn, shard = divmod(chunk, self.shards)
        return shard == self.shard and turn % self.of == self.number


def work(folder: Folder, place: Place, share: Share) -> None:
    """Bring the chunks of a share through every stage.

    Raises: UserError for a stage that cannot be opened; RunError for a score that is not finite.
    """
    settings = folder.settings
    mine = [chunk for chunk in folder.missing(GENERATED) if share.takes(chunk)]
    if mine:
        generate = make_stage("generate", settings.generate).open(place)
        for chunk in _told(mine, "generate", place.say, folder):
            if not folder.has(GENERATED, chunk):  # another start of the same share may have made it meanwhile
                folder.write_generated(chunk, generate(folder.prompts(chunk)))
        del generate
    scorers = [("score", settings.score), *((f"margins.{n}", m) for n, m in enumerate(settings.margins))]
    for stage, (where, scorer) in zip(judgements(settings), scorers, strict=True):
        mine = [chunk for chunk in folder.missing(stage) if share.takes(chunk) and folder.has(GENERATED, chunk)]
        if mine:
            with of_stage(where):
                judge = make_stage("score", scorer, where).open(place)
            for chunk in _told(mine, where, place.say, folder):
                if not folder.has(stage, chunk):
                    folder.write_judged(stage, chunk, _judged(judge, folder.generated(chunk), where, scorer))
            del judge


def _judged(
    judge: Callable[[Sequence[Example]], list[Judged]], generated: list[Generated], where: str, scorer: dict[str, Any]
) -> list[Judged]:
    examples = [example for one in generated for example in one.examples]
    judged = judge(examples) if examples else []
    for example, one in zip(examples, judged, strict=True):
        if not len(one.scores) == len(one.reasons) == len(example.candidates):
            raise RuntimeError(
                f"{scorer['name']} gave {len(one.scores)} scores to {len(example.candidates)} candidates"
            )
        for score, reason in zip(one.scores, one.reasons, strict=True):
            if (score is None) == (reason is None):
                raise RuntimeError(f"{scorer['name']} must give every candidate a score or a reason, {example.id}")
            if score is not None and not math.isfinite(score):
                raise RunError(f"{where}={scorer['name']}: a score of {example.id} is {score}", "look at that row")
    return judged


def _told(chunks: list[int], what: str, say: Callable[[str], None], folder: Folder) -> Iterator[int]:
    """The chunks, and for the user how far it is."""
    start = time.perf_counter()
    for done, chunk in enumerate(chunks):
        yield chunk
        rate = (done + 1) * folder.settings.chunk_size / (time.perf_counter() - start)
        say(f"{what}: {done + 1} of {len(chunks)} chunks, {rate:.1f} prompts/s")
