"""Everything that talks to a model: chat backends, embedders, tokenizers, and the cache of finished calls."""
