import json

import pytest
import yaml

from lf_longpo.config import (
    GenerateConfig,
    LongMabConfig,
    LongMabGenerateConfig,
    LongQAConfig,
    LongRewardConfig,
    LongRewardGenerateConfig,
)
from lf_longpo.config.loading import load_config
from lf_longpo.errors import UserError
from lf_longpo.files.run_dir import changed_settings

GOOD = """
method: longmab
input: q.jsonl
output_dir: run
dataset_name: d
policy: {backend: openai, model: m, base_url: http://x/v1}
pairs: {template: llama3}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    return file


def test_defaults_are_the_papers(path):
    config = load_config(GenerateConfig, path)
    assert (config.longmab.chunk_size, config.longmab.rounds, config.longmab.top_k) == (1500, 30, 4)
    sampling = config.longmab.sampling
    assert (sampling.temperature, sampling.top_p, sampling.presence_penalty, sampling.max_new_tokens) == (
        1.0,
        0.95,
        1.0,
        1024,
    )
    assert config.pairs.cutoff_len == 8500


def test_overrides_go_down_by_dots(path):
    config = load_config(GenerateConfig, path, ["longmab.rounds=8", "seed=1", "policy.model=a=b"])
    assert (config.longmab.rounds, config.seed, config.policy.model) == (8, 1, "a=b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("longmab.round=3", r"c\.yaml: unknown key longmab\.round; did you mean rounds\?"),
        ("longmab.rounds=many", r"longmab\.rounds: .*integer.*, not 'many'"),
        ("longmab.rounds=0", r"longmab\.rounds: .*greater than or equal to 1"),
        ("method=other", "method"),
        ("policy.adapter=x", r"policy: adapter needs backend: transformers"),
        ("policy.tensor_parallel_size=2", r"policy: tensor_parallel_size needs backend: vllm"),
        (
            "policy={backend: transformers, model: x, max_concurrency: auto}",
            r"max_concurrency: auto needs backend: openai",
        ),
        ("policy={backend: vllm, model: x, tokens_per_minute: 9}", r"tokens_per_minute needs backend: openai"),
        ("policy.base_url=[]", r"policy.base_url"),
        ("rounds", "must have the form key=value"),
        ("input.x=1", "input holds a value"),
    ],
)
def test_errors_name_file_field_and_fix(path, override, message):
    with pytest.raises(UserError, match=message):
        load_config(GenerateConfig, path, [override])


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(GenerateConfig, tmp_path / "none.yaml")
    broken = tmp_path / "b.yaml"
    broken.write_text("a: [")
    with pytest.raises(UserError, match="is not YAML"):
        load_config(GenerateConfig, broken)
    broken.write_text("- a")
    with pytest.raises(UserError, match="must hold settings, one `key: value` per line"):
        load_config(GenerateConfig, broken)
    broken.write_text("input: x")
    with pytest.raises(UserError, match=r"output_dir is missing; set it\n.*model is missing"):
        load_config(LongQAConfig, broken)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: !!bool x", r"c\.yaml is not YAML: odd value or tag \(KeyError\('x'\)\)"),
        ('seed: !!int ""', r"c\.yaml is not YAML"),
        ("seed: " + "[" * 400, r"c\.yaml is not YAML"),
        ("max_failure_rate: .nan", r"c\.yaml: max_failure_rate: .*finite number"),
        ('tokenizer: "a\\uD83D"', r"c\.yaml: the field tokenizer holds \\ud83d, half of a character"),
        ('tokenizer: "a\\0b"', r"c\.yaml: tokenizer holds a null character; remove it"),
    ],
)
def test_what_yaml_can_spell_and_nothing_can_use_is_refused(path, line, message):
    path.write_text(f"{GOOD}{line}\n")
    with pytest.raises(UserError, match=message):
        load_config(GenerateConfig, path)


def test_several_greedy_samples_are_refused(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text("{input: q, output_dir: o, samples: 3, model: {backend: openai, model: m}}")
    with pytest.raises(UserError, match="are all the same"):
        load_config(LongQAConfig, file)


MODEL = {"model": "m", "base_url": "http://127.0.0.1/v1"}
GENERATION = {
    "input": "q.jsonl",
    "output_dir": "run",
    "dataset_name": "d",
    "tokenizer": "t",
    "policy": MODEL,
    "pairs": {"template": "llama3"},
}


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        ({"method": "longmab", "longmab": {"rounds": 3}}, LongMabGenerateConfig),
        ({"method": "longreward", "judge": MODEL, "longreward": {"num_samples": 6}}, LongRewardGenerateConfig),
    ],
)
def test_each_method_has_its_own_configuration(own, kind):
    config = GenerateConfig.model_validate(GENERATION | own)
    assert type(config) is kind
    assert GenerateConfig.model_validate_json(config.model_dump_json()) == config
    others = {"longmab", "longreward", "judge", "responses"} - set(kind.model_fields)
    assert not others & set(config.model_dump())


@pytest.mark.parametrize(
    ("own", "others"),
    [
        ({"method": "longmab"}, {"judge": None, "responses": None, "longreward": LongRewardConfig().model_dump()}),
        ({"method": "longreward", "judge": MODEL}, {"longmab": LongMabConfig().model_dump()}),
    ],
)
def test_a_resolved_configuration_of_an_earlier_version_is_the_same(tmp_path, own, others):
    """It holds the sections of both methods."""
    config = GenerateConfig.model_validate(GENERATION | own | {"output_dir": str(tmp_path)})
    saved = config.model_dump(mode="json") | others
    assert GenerateConfig.model_validate(saved) == config
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert changed_settings(config, tmp_path) == {}
    other_method = {"method": "longreward", "judge": MODEL} if own["method"] == "longmab" else {"method": "longmab"}
    other = GenerateConfig.model_validate(GENERATION | other_method | {"output_dir": str(tmp_path)})
    assert changed_settings(other, tmp_path) == {"method": (own["method"], other.method)}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"method": "longmab", "longreward": {"num_samples": 3}}, "longreward: not for method: longmab; remove it"),
        ({"method": "longmab", "longreward": {"no_such": 3}}, "longreward: not for method: longmab; remove it"),
        ({"method": "longmab", "judge": MODEL}, "judge: not for method: longmab; remove it or change the method"),
        ({"method": "longmab", "responses": "r.jsonl"}, "responses: not for method: longmab"),
        ({"method": "longmab", "policy": None}, "^settings: policy.model is missing; set it$"),
        ({"method": "longmab", "longmab": {"round": 3}}, r"unknown key longmab\.round; did you mean rounds\?"),
        ({"method": "longreward", "longmab": {"rounds": 3}, "judge": MODEL}, "longmab: not for method: longreward"),
        (
            {"method": "longmob", "longmab": {"rounds": 3}},
            "^settings: method: Input should be 'longmab' or 'longreward'",
        ),
        ({}, "^settings: method is missing; set it$"),
    ],
)
def test_sections_of_the_other_method_are_named(own, message):
    overrides = [f"{name}={json.dumps(value)}" for name, value in (GENERATION | own).items()]
    with pytest.raises(UserError, match=message):
        load_config(GenerateConfig, None, overrides)


@pytest.mark.parametrize("kind", [LongMabGenerateConfig, LongRewardGenerateConfig])
def test_the_common_class_makes_the_configuration_of_the_method(kind):
    data = GENERATION | ({"method": "longmab"} if kind is LongMabGenerateConfig else {"method": "longreward"})
    data |= {"judge": MODEL} if kind is LongRewardGenerateConfig else {}
    made = GenerateConfig(**data)
    assert type(made) is kind and made == GenerateConfig.model_validate(data) == kind(**data)
    with pytest.raises(ValueError, match="method"):
        GenerateConfig(**(data | {"method": "longmob"}))
    with pytest.raises(ValueError, match="Field required"):
        GenerateConfig()
