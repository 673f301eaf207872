"""Models of every kind: chat backends behind one protocol, embedders, tokenizers, and the cache of finished calls.

Only this room imports a client or an engine of models. Nothing here knows a method, a run's stages or its folder.
"""
