"""Prompt templates."""

import pytest

from lf_longpo.errors import UserError
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, fill, load_prompt


def test_placeholders_in_values_stay():
    template = "Text: {context} Question: {question}"
    filled = fill(template, context="{question} {x} {{", question="{context}")
    assert filled == "Text: {question} {x} {{ Question: {context}"


def test_your_own_prompts_need_their_placeholders(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("{context} and {question}")
    assert load_prompt(str(own), QA_PROMPTS, QA_FIELDS, "prompt") == "{context} and {question}"
    own.write_text("{context} and {wrong}")
    with pytest.raises(UserError, match=r"prompt: .*own.txt must hold the placeholders \{context\}, \{question\}"):
        load_prompt(str(own), QA_PROMPTS, QA_FIELDS, "prompt")
    with pytest.raises(UserError, match=r"no prompt 'nope'; use one of brief, plain, reasoning"):
        load_prompt("nope", QA_PROMPTS, QA_FIELDS, "prompt")
