"""The report of a run: one self-contained HTML page with figures, advice, pairs and failures.

This room reads the run's folder through `run_folder` and writes only report.html. The page must escape every text of a
model or a data set and must load nothing from a network. Nothing here makes calls.
"""
