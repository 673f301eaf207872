"""The recipes of `llamafactory-cli export`: a merged model gives the logits of base and adapter."""

import pytest
import torch
import yaml
from conftest import REPOSITORY
from peft import LoraConfig, PeftModel, get_peft_model
from recipes import FAMILIES
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_export_merges_the_adapter(family, tmp_path):
    from llamafactory.train.tuner import export_model

    base = tiny_model(family, tmp_path / "base")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules="all-linear"))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")

    recipe = yaml.safe_load((REPOSITORY / f"yaml/{family}_export.yaml").read_text())
    places = {"model_name_or_path": base, "adapter_name_or_path": tmp_path / "adapter", "export_dir": tmp_path / "out"}
    export_model(recipe | {name: str(place) for name, place in places.items()})

    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("Where is the lamp?", return_tensors="pt")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(base)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        alone = plain(ids).logits
        together = PeftModel.from_pretrained(plain, tmp_path / "adapter")(ids).logits
        exported = merged(ids).logits
    assert torch.allclose(exported, together, atol=1e-4)
    assert not torch.allclose(exported, alone, atol=1e-2)
