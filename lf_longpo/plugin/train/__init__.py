"""`longpo train`: LLaMA-Factory's DPO and SFT with the same loss in a fraction of the memory and time."""
