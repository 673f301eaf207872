"""The engine of a run: its session, the pipeline that many questions go through together, and the method protocol.

It knows no method and no benchmark.
"""
