"""LongReward (arXiv 2410.21252): a judge scores responses to long contexts on four dimensions."""
