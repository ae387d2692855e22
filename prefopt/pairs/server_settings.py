"""What a stage that asks a server has in common with the others that do. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit


@dataclass(frozen=True)
class ServerSettings:
    """Where requests go, in OpenAI's protocol, and how hard they may press.

    url: the base address, with its version: http://localhost:8000/v1.
    model: the name that the server knows it by.
    api_key_env: the NAME of the environment variable that holds the key; empty for a server that asks for none.
    requests_per_minute: of each process, evenly spaced; null for no limit.
    concurrency: requests of a process that are on their way at once.
    timeout: seconds that one request may take.
    retries: how often a request is tried again after 429, a 5xx, a timeout or a lost connection. Waits 1, 2, 4, ... up
        to 60 seconds in between, or as long as the server's Retry-After says.
    body: further fields of every request, as the server's manual names them; null takes one of ours away, such as
        {max_tokens: null, max_completion_tokens: 2048}.
    """

    url: str = ""
    model: str = ""
    api_key_env: str = ""
    requests_per_minute: float | None = None
    concurrency: int = 8
    timeout: float = 300.0
    retries: int = 5
    body: dict[str, Any] = field(default_factory=dict)
    own_fields: ClassVar[Mapping[str, str]] = {}
    """Field of a request to what it is set by: a setting, or "prefopt" for what no setting changes."""

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.model:
            raise ValueError("model must be the name that the server knows it by")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # What was given may be the key itself, so it is not shown.
            raise ValueError("api_key_env must be the name of an environment variable, such as OPENAI_API_KEY")
        if self.requests_per_minute is not None and not self.requests_per_minute > 0:
            raise ValueError(
                f"requests_per_minute must be above 0, or null for no limit, not {self.requests_per_minute}"
            )
        if not 1 <= self.concurrency <= 1024:
            raise ValueError(f"concurrency must be from 1 to 1024, not {self.concurrency}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, not {self.retries}")
        for name, value in self.body.items():
            owner = {"model": "model", "stream": "prefopt", "n": "prefopt", **self.own_fields}.get(name)
            if owner == "prefopt" or name == "model":
                raise ValueError(f"body.{name} is set by {owner} and cannot be changed here")
            if owner and value is not None:
                raise ValueError(f"body.{name} is set by {owner}; in body it can only be null, which leaves it out")
            if owner is None and value is None:
                raise ValueError(f"body.{name} is null, and there is no such field to leave out")

    def full_body(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """A request's fields: the model, those of the stage, and what `body` adds or takes away."""
        merged = {"model": self.model, **own, **self.body}
        return {name: value for name, value in merged.items() if value is not None}


def _check_url(url: str) -> None:
    if not url:
        raise ValueError("url must be the server's base address, such as http://localhost:8000/v1")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if is_address and (parts.username is not None or parts.password is not None):
        raise ValueError("url must hold no user and no password; name the variable with the key in api_key_env")
    if not is_address or not re.fullmatch(r"[!-~]+", url) or parts.query or parts.fragment:
        raise ValueError(f"url must be an address such as http://localhost:8000/v1, not {url!r}")
    if parts.path.rstrip("/").endswith(("/completions", "/chat")):
        raise ValueError(f"url must be the base address without /chat/completions, not {url!r}")
