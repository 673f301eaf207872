"""Sections with defaults: a key that is set leaves the others, except those that belong to what it replaces."""

import pytest

from lf_longpo.config import GPT_4O, LongBenchChatConfig, LongBenchConfig, ScoreConfig, WinRateConfig
from lf_longpo.config.loading import load_config
from lf_longpo.config.models import PriceConfig
from lf_longpo.errors import UserError

OPENAI = "https://api.openai.com/v1"
EVALUATION = ["input=q.jsonl", "output_dir=run", "model.model=m"]


def judge_of(*overrides, kind=LongBenchConfig, path=None):
    required = {LongBenchChatConfig: ["few_shots=f.json"], WinRateConfig: ["against.model=n"]}.get(kind, [])
    return load_config(kind, path, [*EVALUATION, *required, *overrides]).judge


def score_judge_of(*overrides):
    return load_config(ScoreConfig, None, ["responses=r.jsonl", *overrides]).judge


@pytest.mark.parametrize("kind", [LongBenchConfig, LongBenchChatConfig, WinRateConfig])
def test_another_model_keeps_the_provider_and_drops_the_window(kind):
    judge = judge_of("judge.model=gpt-4.1", kind=kind)
    assert (judge.provider, judge.base_url, judge.api_key_env) == ("openai", OPENAI, "OPENAI_API_KEY")
    assert (judge.model, judge.context_window, judge.price) == ("gpt-4.1", None, None)
    assert judge_of("judge.model=gpt-4.1", "judge.context_window=9", kind=kind).context_window == 9


def test_other_keys_keep_the_model_and_its_window():
    judge = judge_of("judge.max_concurrency=8", "judge.price.prompt=2.5")
    assert judge == GPT_4O.model_copy(update={"max_concurrency": 8, "price": PriceConfig(prompt=2.5)})
    assert judge_of("judge.model=gpt-4o").context_window == 128_000
    assert judge_of() == GPT_4O


def test_another_place_replaces_the_whole_default():
    judge = judge_of("judge.base_url=http://host/v1", "judge.model=qwen")
    assert (judge.provider, judge.base_url, judge.context_window) == (None, "http://host/v1", None)
    judge = judge_of("judge.provider=zhipu", "judge.model=glm-4-plus")
    assert (judge.api_key_env, judge.send_seed, judge.context_window) == ("ZHIPUAI_API_KEY", False, None)
    assert judge_of("judge.backend=transformers", "judge.model=x").provider is None
    for place in ("base_url=http://host/v1", "provider=zhipu", "backend=transformers"):
        with pytest.raises(UserError, match=r"judge\.model is missing"):
            judge_of(f"judge.{place}")


def test_null_stays_null_until_a_key_is_set(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("judge: null\n")
    assert judge_of(path=path) is None
    assert judge_of("judge.max_concurrency=8", path=path).model == "gpt-4o"


def test_the_judge_of_score_stays_in_this_process_until_a_place_is_set():
    judge = score_judge_of("judge.model=org/model")
    assert (judge.backend, judge.model, judge.max_concurrency) == ("transformers", "org/model", 16)
    judge = score_judge_of("judge.max_concurrency=4")
    assert (judge.backend, judge.model, judge.max_concurrency) == ("transformers", "smollm2-135m", 4)
    judge = score_judge_of("judge.adapter=saves/x")
    assert (judge.backend, judge.model, judge.adapter) == ("transformers", "smollm2-135m", "saves/x")
    judge = score_judge_of("judge.provider=openai", "judge.model=gpt-4.1")
    assert (judge.backend, judge.model, judge.max_concurrency) == ("openai", "gpt-4.1", 64)
    judge = score_judge_of("judge.base_url=http://host/v1", "judge.model=m")
    assert (judge.backend, judge.provider, judge.max_concurrency) == ("openai", None, 64)


@pytest.mark.parametrize("changes", [[], ["judge.model=gpt-4.1"], ["judge.base_url=http://h/v1", "judge.model=m"]])
def test_saved_settings_are_read_back_the_same(changes):
    config = load_config(LongBenchConfig, None, [*EVALUATION, *changes])
    assert LongBenchConfig.model_validate(config.model_dump(mode="json")) == config
