"""`measure=answers` at work: ask turn after turn, chunk after chunk; then the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.disk import unwritten, write_whole
from prefopt.errors import UserError
from prefopt.evaluate.answer_chunks import Chunks, Reply
from prefopt.evaluate.answer_figures import measured
from prefopt.evaluate.answer_files import ANSWERS, Answer, answer_line
from prefopt.evaluate.exports import alpaca_eval, arena_hard, mt_bench
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.questions import Question, Questions, read_questions
from prefopt.evaluate.token_len import token_lens
from prefopt.pairs.places import real

if TYPE_CHECKING:
    from prefopt.evaluate.answering import Answerer
    from prefopt.evaluate.measures.answers import Answers


def measure_answers(settings: Answers, place: EvalPlace) -> Measured:
    """What `Answers` promises. Raises: as it says."""
    questions, chunks = _opened(settings, place)
    replies = _Asking(settings, place, questions.all, chunks).replies(0, 1)
    generator = settings.generator or (place.run.name if place.run is not None else Path(place.model).name)
    answers = [
        Answer(
            question.id,
            question.text(turn),
            reply.response,
            generator,
            question.category,
            turn,
            reply.tokens,
            reply.stopped,
            question.prompt.is_chat,
        )
        for question, turns in zip(questions.all, replies, strict=True)
        for turn, reply in enumerate(turns, 1)
        if reply.response is not None
    ]
    if not answers:
        raise _nothing_asked(settings, replies)
    write_whole(place.folder / ANSWERS, "".join(map(answer_line, answers)), "out")
    notes = _export(settings.format, place.folder, _whole(answers, questions), chunks.begun)
    return measured(settings, questions, replies, answers, notes)


def answer_share(settings: Answers, place: EvalPlace, number: int, of: int) -> None:
    """Answer every `of`-th chunk from `number` on, in all turns. Raises: as `Answers` says."""
    questions, chunks = _opened(settings, place)
    _Asking(settings, place, questions.all, chunks).replies(number, of)


def _opened(settings: Answers, place: EvalPlace) -> tuple[Questions, Chunks]:
    questions = read_questions(Path(real(settings.questions, "measure.questions")), settings.format)
    return questions, Chunks(place.folder / "answered", _about(settings, place, questions))


def _nothing_asked(settings: Answers, replies: Sequence[Sequence[Reply]]) -> UserError:
    reasons = Counter(reply.reason for turns in replies for reply in turns)
    said = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    detail = next(reply.detail for turns in replies for reply in turns)
    return UserError(
        f"{settings.questions}: none of its {len(replies)} questions could be asked: {said} ({detail})",
        "look at the model's chat template, at measure.max_prompt_tokens and at measure.max_new_tokens",
    )


def _about(settings: Answers, place: EvalPlace, questions: Questions) -> dict[str, Any]:
    """What decides the answers, besides the weights, which the manifest of the folder knows by their content."""
    own = {key: value for key, value in asdict(settings).items() if key not in ("questions", "generator")}
    whole = {key: getattr(place.settings, key) for key in ("seed", "dtype", "chat_template")}
    return {**whole, **own, "questions": questions.digest}


@dataclass
class _Asking:
    """Asks what is not kept yet. The model is loaded for the first chunk that is missing: a folder in which everything
    is answered needs none."""

    settings: Answers
    place: EvalPlace
    questions: Sequence[Question]
    chunks: Chunks

    def replies(self, number: int, of: int) -> list[list[Reply]]:
        """Of every question its turns; the one that could not be asked is the last. Only every `of`-th chunk from
        `number` on is looked at; the questions of the others have none."""
        replies: list[list[Reply]] = [[] for _ in self.questions]
        size = self.settings.chunk_size
        for turn in range(1, max(question.num_turns for question in self.questions) + 1):
            for chunk, start in enumerate(range(0, len(replies), size)):
                if chunk % of != number:
                    continue
                places = [
                    place
                    for place, question in enumerate(self.questions[start : start + size], start)
                    if question.num_turns >= turn and all(reply.response is not None for reply in replies[place])
                ]
                found = self._chunk(turn, chunk, places, replies) if places else []
                for place, reply in zip(places, found, strict=True):
                    replies[place].append(reply)
        return replies

    def _chunk(self, turn: int, chunk: int, places: list[int], replies: list[list[Reply]]) -> list[Reply]:
        questions = [self.questions[place] for place in places]
        ids = [question.id for question in questions]
        found = self.chunks.find(turn, chunk, ids)
        if found is None:
            said = [[reply.response or "" for reply in replies[place]] for place in places]
            asked = [question.asked(before) for question, before in zip(questions, said, strict=True)]
            temperatures = [self.settings.temperature_of(question.category) for question in questions]
            found = self._answerer(ids, asked, temperatures)
            self.chunks.keep(turn, chunk, found)
            total = -(-len(self.questions) // self.settings.chunk_size)
            print(f"answers: turn {turn}, {chunk + 1} of {total} chunks", flush=True)
        return found

    @cached_property
    def _answerer(self) -> Answerer:
        from prefopt.evaluate.answering import Answerer, Decoding

        own = self.settings
        decoding = Decoding(own.top_k, own.top_p, own.longest, tuple(own.stop), own.max_prompt_tokens)
        return Answerer(self.place, decoding, self.questions)


def _whole(answers: Sequence[Answer], questions: Questions) -> list[Answer]:
    """The answers to questions of which every turn was answered: an evaluator reads all turns of a row."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.id] = counts.get(answer.id, 0) + 1
    turns = {question.id: question.num_turns for question in questions.all}
    return [answer for answer in answers if counts[answer.id] == turns[answer.id]]


def _export(form: str, folder: Path, answers: Sequence[Answer], begun: float) -> list[str]:
    """Write the evaluator's file; what a reader of it has to know. Raises: RunError where the disk refuses."""
    if form == "prompts" or not answers:
        return []
    notes: list[str] = []
    try:
        if form == "alpaca_eval":
            path = alpaca_eval.write(folder, answers)
        elif form == "mt_bench":
            path = mt_bench.write(folder, answers, begun)
        else:
            lens, note = token_lens(answers)
            path = arena_hard.write(folder, arena_hard.BENCHES[form], answers, lens, begun)
            empty = lens.count(0)
            notes = [note] if note else []
            if empty:
                notes.append(f"{empty} answers have token_len 0, by which Arena-Hard's control for style divides")
    except OSError as error:
        raise unwritten(folder, error, "out") from None
    return [
        f"{path.relative_to(folder)} has the {len({a.id for a in answers})} questions answered in all turns",
        *notes,
    ]
