"""What the answers of shared/data/stories_happy are judged by: happy words less sad words."""

from __future__ import annotations

import re

HAPPY = {"happy", "fun", "love", "loved", "smiled", "smile", "laughed", "hug", "hugged", "nice", "kind", "friend"}
HAPPY |= {"friends", "good", "great", "proud", "excited"}
SAD = {"sad", "cry", "cried", "scared", "hurt", "angry", "afraid", "mad", "bad", "lost", "mean", "broke", "broken"}
SAD |= {"fell", "sorry", "worried"}


def happiness(prompt: str, response: str) -> float:
    """Happy words less sad words of the response, words being runs of a-z in lower case."""
    words = re.findall(r"[a-z]+", response.lower())
    return float(sum(word in HAPPY for word in words) - sum(word in SAD for word in words))
