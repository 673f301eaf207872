"""The LLaMA-Factory side: data set entries, recipes, `longpo check`, and `longpo train`.

The room knows how LLaMA-Factory reads data and settings. It makes no model calls and knows neither method. Private
names of LLaMA-Factory, transformers and accelerate appear in `compat.py` only. Modules outside `train/` import
LLaMA-Factory, torch and transformers inside functions.
"""
