"""`longpo generate`: one run on this machine, a run on a Ray cluster, and the end that both share.

How a question becomes a pair is the method's; nothing about it is decided here.
"""
