"""Settings of a server that cannot be, and a library that is not installed, are told before anything is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from server_bed import place

from prefopt.errors import UserError
from prefopt.pairs.registry import make_stage


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": ""}, "url must be the server's base address"),
        ({"url": "localhost:8000"}, "url must be an address such as"),
        ({"url": "ftp://host/v1"}, "url must be an address such as"),
        ({"url": "http://host:99999/v1"}, "url must be an address such as"),
        ({"url": "http://host/v1?x=1"}, "url must be an address such as"),
        ({"url": "http://host/v1/chat/completions"}, "without /chat/completions"),
        ({"url": "http://me:pass-word@host/v1"}, "url must hold no user and no password"),
        ({"model": ""}, "model must be the name"),
        ({"api_key_env": "sk-not-a-name"}, "api_key_env must be the name of an environment variable"),
        ({"requests_per_minute": 0}, "requests_per_minute must be above 0"),
        ({"concurrency": 0}, "concurrency must be from 1 to 1024"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"body": {"messages": []}}, "body.messages is set by prefopt"),
        ({"body": {"temperature": 0.3}}, "body.temperature is set by temperature; in body it can only be null"),
        ({"body": {"top_k": None}}, "body.top_k is null"),
        ({"n": 0}, "n must be 1 or more"),
        ({"temperature": 0, "n": 8}, "gives one answer 8 times"),
        ({"temperature": 0, "n": 1, "top_p": 0.5}, "top_p has no effect"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more"),
        ({"stop": [""]}, "stop holds an empty text"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        make_stage("generate", {"name": "server", "url": "http://localhost:1/v1", "model": "tiny", **settings})
    assert "pass-word" not in str(caught.value)
    assert "sk-not-a-name" not in str(caught.value)


def test_vllm_that_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError:
        pass
    else:
        pytest.skip("vLLM is installed here")
    where = place(tmp_path)
    where.settings.policy = "some/model"
    with pytest.raises(UserError, match=re.escape("pip install 'prefopt[vllm]'")):
        make_stage("generate", {"name": "vllm"}).open(where)
