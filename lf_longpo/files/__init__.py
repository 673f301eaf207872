"""Reading and writing files: journals that survive a kill, atomic writes, tables of rows, and a run folder's lock and
saved settings.

Every error names its file, and the line and field if there is one; no write leaves a partial file. This room must not
know what a row means.
"""
