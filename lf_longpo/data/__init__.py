"""The data of a run: questions, probes, rollouts, scored responses, pairs, and review decisions about pairs.

This room reads records, checks them and keeps them in files. It must not call a model, and it must not depend on a
method: the methods decide how a response gets its reward.
"""
