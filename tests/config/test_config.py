import pytest

from lf_longpo.config import GenerateConfig, LongQAConfig
from lf_longpo.config.loading import load_config
from lf_longpo.errors import UserError

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
