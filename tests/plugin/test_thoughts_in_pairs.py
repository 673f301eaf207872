"""What LLaMA-Factory trains of pairs with thoughts kept and stripped, by its own encoding."""

import pytest

from lf_longpo.data.records import ScoredResponse
from lf_longpo.errors import UserError
from lf_longpo.plugin.encoding import TemplateEncoder

RESPONSE = ScoredResponse("Answer: 1932", 1.0, 0, "It may be 1931.")
KEPT = {
    "qwen3": "<think>\nIt may be 1931.\n</think>\n\nAnswer: 1932",
    "glm4_moe": "<think>\nIt may be 1931.\n</think>\n\nAnswer: 1932",
    "glmz1": "<think>\nIt may be 1931.\n</think>\n\nAnswer: 1932",
    "glm4_7": "<think>It may be 1931.</think>Answer: 1932",
}
EMPTY = {"qwen3": "<think>\n\n</think>\n\n", "glm4_moe": "<think>\n\n</think>\n\n", "glmz1": "<think>\n\n</think>\n\n"}


def trained(encoder: TemplateEncoder, text: str) -> tuple[str, str, int]:
    """Prompt and response as LLaMA-Factory encodes them for DPO, decoded, and the length of the response."""
    messages = [{"role": "user", "content": "When?"}, {"role": "assistant", "content": text}]
    prompt, response = encoder._template.encode_oneturn(encoder._tokenizer, messages)
    decoded = encoder._tokenizer.decode(prompt), encoder._tokenizer.decode(response)
    return *decoded, len(response) + encoder._template.efficient_eos


@pytest.mark.parametrize("thinking", ["auto", "keep"])
@pytest.mark.parametrize("template", KEPT)
def test_a_kept_thought_is_trained_as_a_whole(template, thinking):
    encoder = TemplateEncoder(template, "smollm2-135m", 512, thinking=thinking)
    text = encoder.written(RESPONSE)
    assert text == KEPT[template]
    prompt, response, length = trained(encoder, text)
    assert "think" not in prompt
    assert response.strip().removesuffix("<|im_end|>") == text
    assert encoder.length("When?", text)[1] == length


@pytest.mark.parametrize("template", EMPTY)
def test_a_stripped_thought_is_trained_as_an_empty_one_under_a_reasoning_template(template):
    encoder = TemplateEncoder(template, "smollm2-135m", 512, thinking="strip")
    text = encoder.written(RESPONSE)
    assert text == "Answer: 1932"
    prompt, response, length = trained(encoder, text)
    assert "think" not in prompt and response.startswith(EMPTY[template]) and "1931" not in response
    assert encoder.length("When?", text)[1] == length


@pytest.mark.parametrize("template", ["qwen3_nothink", "glm4"])
def test_a_template_without_thoughts_gets_the_answer_only(template):
    encoder = TemplateEncoder(template, "smollm2-135m", 512)
    text = encoder.written(RESPONSE)
    assert text == "Answer: 1932"
    _, response, length = trained(encoder, text)
    assert response.strip().removesuffix("<|im_end|>") == text
    assert encoder.length("When?", text)[1] == length
    with pytest.raises(UserError, match=f"keep needs a reasoning template of LLaMA-Factory, and {template} has no"):
        TemplateEncoder(template, "smollm2-135m", 512, thinking="keep")
