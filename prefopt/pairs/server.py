"""A client of any server that speaks OpenAI's protocol: chat/completions and completions, not streamed.

Standard library only. The key never leaves this file but in the request's header: no redirect is followed, and what a
server says is quoted without it.
"""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Hashable, Sequence
from email.message import Message
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.client import HTTPException, HTTPResponse, IncompleteRead
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from prefopt import __version__
from prefopt.errors import RunError, UserError
from prefopt.masking import masked
from prefopt.pairs.gate import Gate
from prefopt.pairs.notes import Notes
from prefopt.pairs.server_settings import ServerSettings
from prefopt.pairs.stages import Place
from prefopt.pairs.threads import each

CHAT = "chat/completions"
PLAIN = "completions"

_LONGEST_BACKOFF = 60.0
_LONGEST_PAUSE = 900.0  # seconds of Retry-After; a server that asks for more has no quota left today
_LARGEST = 32 * 2**20  # bytes of an answer; more is no answer
_PROBES = 3
_AGAIN = "the same command asks only for what has not been answered"

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


class Request(NamedTuple):
    """path: CHAT or PLAIN. body: its JSON. attempt: to ask the very same once more is another request."""

    path: str
    body: str
    attempt: int = 0


class Answer(NamedTuple):
    """text: as the server gave it. finish: why it ended ("stop", "length", ...), or None where it does not say."""

    text: str
    finish: str | None


class Refusal(NamedTuple):
    """A request that the server refuses as it stands, a prompt beyond its context for instance. words: its own."""

    words: str


class _Trouble(NamedTuple):
    """What may be gone when one asks again.

    pause: seconds, where the server says. tries: at most so many retries. is_dead: nobody is there at all.
    """

    words: str
    pause: float | None = None
    tries: int | None = None
    is_dead: bool = False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect would carry the key to another address."""


class Server:
    """One model of one server, for the threads of one process. What was answered once is read from the notes."""

    def __init__(self, settings: ServerSettings, place: Place) -> None:
        """Raises: UserError where the variable with the key is not set; RunError where notes cannot be kept."""
        self._settings = settings
        self._say = place.say
        self._url = settings.url.rstrip("/")
        self._key = _key_of(settings.api_key_env)
        # A folder for each server and model, so that notes tell whether this one has ever answered.
        name = sha256(json.dumps([self._url, settings.model]).encode()).hexdigest()[:16]
        self._notes = Notes(Path(place.notes) / f"server-{name}", place.say)
        self._gate = Gate(settings.requests_per_minute)
        self._jitter = random.Random()
        self._was_probed = False
        self._probing = threading.Lock()
        proxies: dict[str, str] | None = {} if _is_local(urlsplit(self._url).hostname or "") else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirect)

    def open(self) -> None:
        """See whether somebody answers, unless notes of earlier runs may be all that is needed.

        Raises: RunError within seconds where nobody does; UserError where the key is refused.
        """
        if not len(self._notes):
            self._probe()

    def request(self, path: str, own: dict[str, Any]) -> Request:
        """own: the stage's fields of the body."""
        return Request(path, json.dumps(self._settings.full_body(own), sort_keys=True))

    def ask(self, request: Request) -> Answer | Refusal:
        """An answer from the notes, or from the server and then into the notes. For use inside `each`.

        Raises: UserError for a key, a model or an address that the server refuses; RunError where it is dead after all
            retries or does not speak the protocol; Stopped where another request has failed for good.
        """
        key = sha256(json.dumps(request).encode()).hexdigest()
        known = self._notes.get(key)
        if known is not None:
            return Answer(*known)
        self._probe()
        answer = self._tried(request)
        if isinstance(answer, Answer):
            self._notes.keep(key, answer)
        return answer

    def each(self, do: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`do` of every item in their order, `concurrency` at once; equal items are done once. Raises: as `do`."""
        return each(do, items, self._settings.concurrency, self._gate.stop)

    def check_refusals(self, answers: Sequence[Answer | Refusal]) -> None:
        """Raises: UserError where every answer is a refusal and it has never answered: settings are wrong then."""
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        if refused and len(refused) == len(answers) and not len(self._notes):
            raise UserError(
                f"{self._url} refuses every request to the model {self._settings.model!r}: {refused[0].words}",
                "see what the server's manual says of these fields; `body` adds a field or, with null, leaves one out",
            )

    def _probe(self) -> None:
        with self._probing:
            for number in range(_PROBES):
                if self._was_probed:
                    return
                if number:
                    self._gate.sleep(0.5 * number)
                outcome = self._send("models", None, min(10.0, self._settings.timeout))
                # Any word is a sign of life: not every server lists its models, or lists them to everybody.
                self._was_probed = not (isinstance(outcome, _Trouble) and outcome.is_dead)
            if isinstance(outcome, _Trouble) and outcome.is_dead:
                raise RunError(f"{self._url}: {outcome.words}", f"start the server, or correct url; {_AGAIN}")

    def _tried(self, request: Request) -> Answer | Refusal:
        for number in count():
            self._gate.wait()
            outcome = self._send(request.path, request.body.encode(), self._settings.timeout)
            if not isinstance(outcome, _Trouble):
                return outcome
            if number >= min(self._settings.retries, outcome.tries if outcome.tries is not None else number + 1):
                raise RunError(
                    f"{self._url}: {outcome.words} (model {self._settings.model!r}, asked {number + 1} times)",
                    f"see to the server, or lower concurrency or requests_per_minute; {_AGAIN}",
                )
            if outcome.pause and self._gate.hold(outcome.pause) and outcome.pause >= 10:
                self._say(f"{self._url} asks to wait {outcome.pause:.0f} seconds: {outcome.words}")
            backoff = min(_LONGEST_BACKOFF, 2.0**number)
            self._gate.sleep(backoff * self._jitter.uniform(0.75, 1.0))  # so that threads do not come back together
        raise AssertionError

    def _send(self, path: str, data: bytes | None, timeout: float) -> Answer | Refusal | _Trouble:
        """One request. data: None for a GET, of which only signs of life are read."""
        headers = {"Content-Type": "application/json", "User-Agent": f"prefopt/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        asked = urllib.request.Request(f"{self._url}/{path}", data, headers)
        deadline = time.monotonic() + timeout
        try:
            try:
                with self._opener.open(asked, timeout=timeout) as response:
                    status, said, read = response.status, response.headers, _read(response, deadline)
            except HTTPError as error:
                with error:
                    status, said = error.code, error.headers
                    read = _read(cast(HTTPResponse, error.fp), deadline)
        except (OSError, HTTPException, UnicodeError) as error:  # the last for a host that is no name
            return self._lost(error, timeout)
        if 200 <= status < 300:
            return Answer("", None) if data is None else self._understood(path, read)
        return self._refused(path, status, said, self._quoted(read), is_probe=data is None)

    def _lost(self, error: Exception, timeout: float) -> _Trouble:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(
                f"{self._url}: its certificate is not accepted: {reason.verify_message}",
                "correct url; a certificate of your own is named in the environment variable SSL_CERT_FILE",
            )
        if isinstance(reason, TimeoutError):
            return _Trouble(f"the server has not answered within {timeout:g} seconds", tries=2)
        if isinstance(reason, OSError) and not isinstance(reason, ConnectionResetError | BrokenPipeError):
            return _Trouble(f"no server answers there: {self._clean(reason.strerror or str(reason))}", is_dead=True)
        return _Trouble(f"the connection was lost: {self._clean(str(reason)) or type(reason).__name__}")

    def _refused(
        self, path: str, status: int, headers: Message, words: str, *, is_probe: bool
    ) -> Answer | Refusal | _Trouble:
        """What an HTTP status other than success means."""
        told = f"HTTP {status}: {words}" if words else f"HTTP {status}"
        model = self._settings.model
        if status == 401 or (status == 403 and not is_probe):
            name = self._settings.api_key_env
            held = f"the key in the environment variable {name}" if name else "a request without a key (api_key_env)"
            raise UserError(f"{self._url} refuses {held} for the model {model!r}: {told}", "correct api_key_env")
        if is_probe:
            return Answer("", None)
        if status == 404:
            raise UserError(
                f"{self._url}/{path} does not know the model {model!r}, or there is nothing at that address: {told}",
                f"`curl {self._url}/models` lists a server's models; url must be the address that comes before /{path}",
            )
        if 300 <= status < 400:
            place = self._clean(headers.get("Location", "another address"))
            raise UserError(f"{self._url} sends requests on to {place}", "redirects are not followed; correct url")
        if status in (408, 425, 429) or status >= 500:
            pause = _pause(headers.get("Retry-After"))
            if pause is not None and pause > _LONGEST_PAUSE:
                raise RunError(f"{self._url} asks to wait {pause:.0f} seconds: {told}", f"wait; then {_AGAIN}")
            return _Trouble(f"the server answers {told}", pause)
        return Refusal(told)

    def _understood(self, path: str, read: bytes) -> Answer | _Trouble:
        """The answer in a body; nonsense is asked for once or twice more, since a proxy may have spoken."""
        wanted = "choices[0].message.content" if path == CHAT else "choices[0].text"
        try:
            choice = json.loads(read)["choices"][0]
            text = choice["message"]["content"] if path == CHAT else choice["text"]
            finish = choice.get("finish_reason")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            words = self._quoted(read) or "nothing"
            return _Trouble(
                f"what comes back is no answer of OpenAI's protocol ({wanted} is missing): {words}", tries=2
            )
        if not isinstance(text, str | None) or not isinstance(finish, str | None):
            return _Trouble(f"{wanted} or its finish_reason is no text: {self._quoted(read)}", tries=2)
        return Answer(text or "", finish)  # models that think answer null where all tokens went into that

    def _quoted(self, read: bytes) -> str:
        """What a server says of an error, on one line."""
        try:
            said = json.loads(read)
            found = said.get("error") or said.get("message") or said.get("detail") or said
            found = found.get("message", found) if isinstance(found, dict) else found
            text = found if isinstance(found, str) else json.dumps(found)
        except (ValueError, AttributeError, RecursionError):
            text = read.decode("utf-8", "replace")
        return self._clean(text)

    def _clean(self, text: str) -> str:
        text = masked(text.replace(self._key, "***") if self._key else text)  # before a cut could halve a secret
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= 300 else text[:297] + "..."


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """A whole body. Raises: TimeoutError for one that drips beyond the deadline; HTTPException for one cut short."""
    parts = []
    size = 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise HTTPException(f"an answer of more than {_LARGEST >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:  # of Content-Length; read1 does not mind its absence
        raise IncompleteRead(b"", response.length)
    return b"".join(parts)


def _key_of(name: str) -> str:
    """The key that a variable holds; empty where none is named."""
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"api_key_env: the environment variable {name} is not set", f"export {name}=...")
    if not re.fullmatch(r"[!-~]+", key):
        raise UserError(f"api_key_env: what {name} holds is no key: there are spaces or letters beyond ASCII in it")
    return key


def _pause(header: str | None) -> float | None:
    """Seconds that Retry-After asks for, a number or a date; None for none that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header) if re.fullmatch(r"\s*[0-9.]+\s*", header) else None
        return seconds if seconds is not None else max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
