"""Frozen weights under adapters in 4 or 8 bits, by bitsandbytes as transformers loads it."""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig


def quantisation(base: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How `model.lora.base` is held; None for plain. The LM head and the embedding stay as they are in any case.

    nf4: 4 bits and 0.13 of scales, themselves quantised (QLoRA, Dettmers et al. 2023, arXiv 2305.14314); products are
        computed in `dtype`.
    int8: weights and activations scaled row by row by their largest number. LLM.int8 (arXiv 2208.07339) also computes
        the columns of outliers in 16 bits, and a column is one wherever any token of the batch has a large number in
        it: a row's log-probability would depend on its neighbours, so this is off.
    """
    if base == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0) if base == "int8" else None
