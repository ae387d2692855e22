"""What happens to rows beyond the limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.data.fit import Limits
from prefopt.data.rows import Unusable
from prefopt.errors import UserError

BOS, EOS = 0, 9
PROMPT = [BOS, 1, 2, 3, 4]
RESPONSES = [[5, 6, EOS], [7, EOS]]


def fit(max_length, max_prompt_length=None, too_long="drop", prompt=PROMPT, responses=RESPONSES):
    return Limits(max_length, max_prompt_length, too_long).fit(prompt, responses, BOS, "f.jsonl:3")


@pytest.mark.parametrize("too_long", ["drop", "truncate_prompt", "truncate_response", "error"])
def test_a_row_at_the_limit_is_untouched(too_long):
    assert fit(8, 5, too_long)[:2] == (PROMPT, RESPONSES)


def test_drop_says_the_numbers():
    with pytest.raises(Unusable) as error:
        fit(7)
    assert error.value.reason == "too long"
    assert error.value.detail == "prompt 5 + longest response 3 = 8 tokens, max_length 7"
    with pytest.raises(Unusable) as error:
        fit(100, 4)
    assert (error.value.reason, error.value.detail) == ("prompt too long", "5 tokens, max_prompt_length 4")


def test_error_names_the_row():
    with pytest.raises(UserError, match=r"f\.jsonl:3: too long: prompt 5"):
        fit(7, too_long="error")


def test_the_end_of_the_prompt_is_kept_behind_its_bos():
    assert fit(7, None, "truncate_prompt")[:3] == ([BOS, 2, 3, 4], RESPONSES, True)
    assert fit(5, None, "truncate_prompt").prompt == [BOS, 4]
    assert fit(100, 3, "truncate_prompt").prompt == [BOS, 3, 4]
    assert fit(7, None, "truncate_prompt", prompt=[8, 1, 2, 3, 4]).prompt == [1, 2, 3, 4]


def test_a_response_that_leaves_no_room_for_the_prompt_is_left_out_whole():
    with pytest.raises(Unusable, match="response leaves no room for the prompt"):
        fit(4, None, "truncate_prompt")


def test_responses_are_cut_at_their_end_and_counted():
    fitted = fit(7, None, "truncate_response")
    assert fitted == (PROMPT, [[5, 6], [7, EOS]], False, 1)
    assert fit(6, None, "truncate_response") == (PROMPT, [[5], [7]], False, 2)


def test_no_response_is_ever_emptied():
    with pytest.raises(Unusable, match="prompt leaves no room"):
        fit(5, None, "truncate_response")
    with pytest.raises(Unusable, match="prompt too long"):
        fit(100, 4, "truncate_response")


@given(
    prompt=st.lists(st.integers(0, 8), min_size=1, max_size=12),
    responses=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=3),
    max_length=st.integers(2, 20),
    max_prompt_length=st.none() | st.integers(1, 12),
    too_long=st.sampled_from(["drop", "truncate_prompt", "truncate_response"]),
)
def test_what_is_kept_always_fits_and_is_part_of_what_was_there(
    prompt, responses, max_length, max_prompt_length, too_long
):
    try:
        fitted = Limits(max_length, max_prompt_length, too_long).fit(prompt, responses, BOS, "f:1")
    except Unusable:
        return
    assert 1 <= len(fitted.prompt) <= (max_prompt_length or max_length)
    assert len(fitted.prompt) + max(map(len, fitted.responses)) <= max_length
    assert all(old[: len(new)] == new and new for old, new in zip(responses, fitted.responses, strict=True))
    assert (fitted.prompt[0] == BOS) >= (prompt[0] == BOS)
    body = fitted.prompt[1:] if fitted.prompt_cut and prompt[0] == BOS else fitted.prompt
    assert prompt[len(prompt) - len(body) :] == body
    assert fitted.num_eos_lost == sum(len(new) < len(old) for old, new in zip(responses, fitted.responses))
