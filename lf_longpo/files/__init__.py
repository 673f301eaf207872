"""Files that survive a kill: journals, atomic writes, tables of rows, a run folder's lock and saved settings.

Nothing here knows what a row means. Every fault names its file, and the line or field where there is one.
"""
