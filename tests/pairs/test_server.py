"""A server in OpenAI's protocol: it fails in every way, and the client retries, waits, or says why it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from server_bed import FakeServer, Reply, dead_url, example, place, scripted, serving

from prefopt.errors import FAILURE, MISUSE, RunError, UserError
from prefopt.pairs.chance import key_of, number_of
from prefopt.pairs.registry import make_stage
from prefopt.pairs.stages import Generated

ROOT = Path(__file__).resolve().parents[2]
KEY = "planted/and+not-to-be-found"


def generate(
    fake: FakeServer | str, notes: Path, prompts: list[Any], said: list[str] | None = None, **settings: Any
) -> list[Generated]:
    url = fake if isinstance(fake, str) else fake.url
    stage = make_stage("generate", {"name": "server", "url": url, "model": "tiny", "n": 1, **settings})
    return stage.open(place(notes, said))([p if not isinstance(p, str) else example(p) for p in prompts])


def texts(generated: list[Generated]) -> list[list[str]]:
    return [[c.text for e in g.examples for c in e.candidates] for g in generated]


# What is sent and what comes back


def test_conversations_go_to_chat_and_plain_prompts_to_completions(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
    with serving(lambda number, seen: f"to {seen.path}") as fake:
        made = generate(fake, tmp_path, [example(turns), example("Once", is_chat=False)], concurrency=1)
    assert texts(made) == [["to /v1/chat/completions"], ["to /v1/completions"]]
    chat, plain = (seen.body for seen in fake.seen)
    assert chat["messages"] == [{"role": role, "content": content} for role, content in turns]
    assert plain["prompt"] == "Once"
    assert "Authorization" not in fake.seen[0].headers


def test_every_sample_has_a_seed_of_31_bits_that_its_prompt_decides(tmp_path: Path) -> None:
    settings = {"n": 3, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 5, "stop": ["\n"]}
    with serving(lambda number, seen: f"seed {seen.body['seed']}") as fake:
        one, two = generate(fake, tmp_path, ["a", "b"], **settings)
    expected = [number_of(42, key_of(example("a")), i) % 2**31 for i in range(3)]
    assert [c.text for c in one.examples[0].candidates] == [f"seed {seed}" for seed in expected]
    assert one.examples[0].candidates[0].source == {
        "server": fake.url, "model": "tiny", "seed": expected[0], "finish": "stop"
    }  # fmt: skip
    assert {seen.body["seed"] for seen in fake.seen} == {
        c.source["seed"] for g in (one, two) for c in g.examples[0].candidates if c.source
    }
    body = {key: value for key, value in fake.seen[0].body.items() if key not in ("seed", "messages")}
    assert body == {"model": "tiny", "temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "stop": ["\n"]}


def test_body_adds_fields_and_takes_ours_away(tmp_path: Path) -> None:
    with serving(scripted("yes")) as fake:
        generate(fake, tmp_path, ["a"], body={"max_tokens": None, "max_completion_tokens": 7, "top_k": 20})
    sent = fake.seen[0].body
    assert "max_tokens" not in sent
    assert (sent["max_completion_tokens"], sent["top_k"]) == (7, 20)


def test_empty_answers_are_left_out_by_name_and_prompts_without_any_too(tmp_path: Path) -> None:
    silent = Reply(raw=json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}).encode())

    def script(number: int, seen: Any) -> Reply | str:
        return silent if seen.body["messages"][0]["content"] == "b" or number == 0 else "word"

    with serving(script) as fake:
        one, two = generate(fake, tmp_path, ["a", "b"], n=2, concurrency=1)
    assert texts([one, two]) == [["word"], []]
    assert [(lost.reason, lost.text) for lost in one.left_out] == [("the answer is empty", "")]
    assert "finish length" in one.left_out[0].detail
    assert [(lost.reason, lost.text) for lost in two.left_out] == [
        ("the answer is empty", ""), ("the answer is empty", ""), ("no answer is left", None)
    ]  # fmt: skip


def test_a_prompt_that_the_server_refuses_is_left_out_with_its_words(tmp_path: Path) -> None:
    too_long = Reply(status=400, raw=b'{"error": {"message": "beyond the context of 16 tokens"}}')
    with serving(lambda number, seen: too_long if "long" in seen.body["messages"][0]["content"] else "fine") as fake:
        made = generate(fake, tmp_path, ["short", "long long"])
    assert texts(made) == [["fine"], []]
    assert made[1].left_out == (("rows.jsonl:1", "the server refuses the prompt",
                                 "HTTP 400: beyond the context of 16 tokens", None),)  # fmt: skip


def test_a_server_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    with (
        serving(scripted(Reply(status=400, raw=b'{"detail": "temperature: unsupported"}'))) as fake,
        pytest.raises(UserError, match=r"refuses every request to the model 'tiny': HTTP 400: temperature: unsupp"),
    ):
        generate(fake, tmp_path, ["a", "b"])


def test_equal_prompts_are_asked_once_and_both_answered(tmp_path: Path) -> None:
    with serving(lambda number, seen: f"answer {number}") as fake:
        made = generate(fake, tmp_path, ["same", "same"])
    assert texts(made) == [["answer 0"], ["answer 0"]]
    assert len(fake.seen) == 1


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=500, raw=b"oops"),
        Reply(status=503, raw=b""),
        Reply(raw=b"<html>a proxy speaks</html>"),
        Reply(raw=b'{"choices": []}'),
        Reply(raw=b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(raw=b'{"error": "overloaded"}'),
        Reply("cut short", cut=True),
        Reply("too late", hang=1.5),
    ],
    ids=["500", "503", "html", "no choices", "a number", "error in 200", "cut", "hang"],
)
def test_a_failure_that_passes_is_retried(failure: Reply, tmp_path: Path) -> None:
    with serving(scripted(failure, "fine")) as fake:
        assert texts(generate(fake, tmp_path, ["a"], timeout=0.7)) == [["fine"]]
        assert len(fake.seen) == 2
        assert fake.seen[0].body == fake.seen[1].body


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_by_every_thread(form: str, tmp_path: Path) -> None:
    def script(number: int, seen: Any) -> Reply | str:
        after = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)  # a date has whole seconds
        return Reply(status=429, headers={"Retry-After": after}) if number == 0 else Reply("fine", hang=0.3)

    with serving(script) as fake:
        assert texts(generate(fake, tmp_path, list("abcd"), concurrency=2)) == [["fine"]] * 4
    # The other thread had one request on its way; it starts no other until the pause is over.
    times = [seen.time - fake.seen[0].time for seen in fake.seen]
    assert len(times) == 5
    assert all(t >= 1.9 for t in times[2:])


def test_a_pause_beyond_reason_ends_the_run(tmp_path: Path) -> None:
    with serving(scripted(Reply(status=429, headers={"Retry-After": "86400"}, raw=b"quota"))) as fake:
        with pytest.raises(RunError, match="asks to wait 86400 seconds: HTTP 429: quota") as caught:
            generate(fake, tmp_path, ["a"])
        assert caught.value.exit_code == FAILURE
        assert len(fake.seen) == 1


def test_back_off_grows(tmp_path: Path) -> None:
    with serving(scripted(*[Reply(status=502)] * 2, "fine")) as fake:
        generate(fake, tmp_path, ["a"])
    first, second = (late.time - early.time for early, late in pairwise(fake.seen))
    assert first >= 0.7
    assert second >= 1.4


# Failures that do not pass


def test_a_dead_server_is_told_within_seconds_before_anything_is_asked(tmp_path: Path) -> None:
    url = dead_url()
    started = time.monotonic()
    with pytest.raises(RunError, match=rf"^{re.escape(url)}: no server answers there: Connection refused"):
        generate(url, tmp_path, ["a"])
    assert time.monotonic() - started < 10


def test_a_server_that_dies_while_it_is_asked_is_told_after_all_retries(tmp_path: Path) -> None:
    with serving(scripted("fine")) as fake:
        stage = make_stage("generate", {"name": "server", "url": fake.url, "model": "tiny", "n": 1, "retries": 1})
        work = stage.open(place(tmp_path))
        assert texts(work([example("a")])) == [["fine"]]
    with pytest.raises(RunError, match=r"no server answers there: Connection refused .model 'tiny', asked 2 times"):
        work([example("b")])


def test_a_server_that_hangs_is_told(tmp_path: Path) -> None:
    with (
        serving(scripted(Reply(hang=3.0))) as fake,
        pytest.raises(RunError, match=r"has not answered within 0\.3 seconds .*asked 2 times"),
    ):
        generate(fake, tmp_path, ["a"], timeout=0.3, retries=1)


def test_a_server_that_speaks_another_protocol_is_told_with_what_it_says(tmp_path: Path) -> None:
    with serving(scripted(Reply(raw=b"<html>Welcome</html>"))) as fake:
        with pytest.raises(RunError, match=r"no answer of OpenAI's protocol .*: <html>Welcome</html>"):
            generate(fake, tmp_path, ["a"])
        assert len(fake.seen) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_address_the_model_and_the_variable(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE", KEY)
    with serving(scripted(Reply(status=status, raw=f'{{"error": {{"message": "bad: {KEY}"}}}}'.encode()))) as fake:
        with pytest.raises(UserError) as caught:
            generate(fake, tmp_path, ["a"], api_key_env="MY_JUDGE")
        assert len(fake.seen) == 1
    assert caught.value.exit_code == MISUSE
    assert fake.url in str(caught.value)
    assert all(word in str(caught.value) for word in ("MY_JUDGE", "'tiny'", f"HTTP {status}: bad: ***"))
    assert KEY not in str(caught.value)


def test_an_unknown_model_is_told_with_the_address(tmp_path: Path) -> None:
    with serving(scripted(Reply(status=404, raw=b'{"error": {"message": "no such model"}}'))) as fake:
        with pytest.raises(UserError, match=r"/v1/chat/completions does not know the model 'tiny'.*no such model"):
            generate(fake, tmp_path, ["a"])
        assert len(fake.seen) == 1


def test_a_failure_of_one_request_ends_those_that_wait(tmp_path: Path) -> None:
    def script(number: int, seen: Any) -> Reply:
        if seen.body["messages"][0]["content"] == "bad":
            return Reply(status=404, hang=0.5)
        return Reply(status=500)

    started = time.monotonic()
    with serving(script) as fake, pytest.raises(UserError, match="does not know the model"):
        generate(fake, tmp_path, ["bad", "b", "c"], retries=20)
    assert time.monotonic() - started < 5


# Limits


def test_requests_per_minute_holds_however_many_are_concurrent(tmp_path: Path) -> None:
    with serving(scripted("fine")) as fake:
        generate(fake, tmp_path, list("abcdefghijkl"), requests_per_minute=600, concurrency=12)
    times = sorted(seen.time for seen in fake.seen)
    assert len(times) == 12
    assert times[-1] - times[0] >= 0.9  # eleven gaps of a tenth of a second, less what the way takes
    assert max(sum(start <= t < start + 0.5 for t in times) for start in times) <= 7


def test_no_more_than_concurrency_are_on_their_way(tmp_path: Path) -> None:
    busy = []
    most = [0]

    def script(number: int, seen: Any) -> str:
        busy.append(number)
        most[0] = max(most[0], len(busy))
        time.sleep(0.1)
        busy.remove(number)
        return "fine"

    with serving(script) as fake:
        generate(fake, tmp_path, list("abcdefghij"), concurrency=3)
    assert 1 < most[0] <= 3


def test_proxies_are_not_asked_about_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead_url())
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(scripted("fine")) as fake:
        assert texts(generate(fake, tmp_path, ["a"])) == [["fine"]]


# Keys


def test_the_key_is_sent_and_never_to_where_a_redirect_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE", KEY)
    with serving(scripted("stolen")) as thief:
        away = Reply(status=307, headers={"Location": thief.url})
        with serving(scripted("fine", away), models=away) as fake:
            generate(fake, tmp_path, ["a"], api_key_env="MY_JUDGE")
            assert fake.seen[0].headers["Authorization"] == f"Bearer {KEY}"
            with pytest.raises(UserError, match=f"sends requests on to {re.escape(thief.url)}"):
                generate(fake, tmp_path, ["b"], api_key_env="MY_JUDGE")
        assert not thief.seen
        assert not thief.probes


@pytest.mark.parametrize("value", [None, "", "two words", "clé"])
def test_a_key_that_is_none_is_refused_unseen(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("MY_JUDGE", value)
    with pytest.raises(UserError, match="MY_JUDGE") as caught:
        generate("http://127.0.0.1:1/v1", tmp_path, ["a"], api_key_env="MY_JUDGE")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_a_key_that_the_server_echoes_is_in_no_output_and_no_file(status: int, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.path.insert(0, 'tests/pairs')\n"
        "from pathlib import Path\nfrom server_bed import place, example\n"
        "from prefopt.pairs.registry import make_stage\n"
        "stage = make_stage('generate', dict(name='server', url=sys.argv[1], model='tiny', n=1, retries=0,"
        " api_key_env='MY_JUDGE'))\n"
        "print(stage)\nprint(stage.open(place(Path(sys.argv[2])))([example('a')]))\n"
    )
    echo = f'{{"error": {{"message": "your key {KEY} and again Bearer {KEY}"}}}}'.encode()
    with serving(scripted(Reply(status=status, raw=echo, headers={"X-Key": KEY}))) as fake:
        done = subprocess.run(
            [sys.executable, "-c", code, fake.url, str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "MY_JUDGE": KEY, "PYTHONPATH": str(ROOT)},
        )
        assert len(fake.seen) == 1
    assert done.returncode == 1
    assert "your key ***" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
