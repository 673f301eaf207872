"""LongMab-PO (arXiv 2508.13993): preference pairs from a bandit over the chunks of a long context."""
