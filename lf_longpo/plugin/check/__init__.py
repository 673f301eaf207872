"""`longpo check`: finds what would stop a training run, or silently harm it, before it costs GPU hours.

The room reads a recipe, its data, its tokenizer and its model's configuration, and collects findings. It loads no
weights, uses no GPU, and changes neither the recipe nor its data; only `fix_lengths.py` writes, and it writes a copy.
"""
