"""`longpo view`: a local page for reading pairs with long contexts and deciding about them.

The pages are rendered on the server and escape every text. Their one script only adds keys. This room
writes only review decisions and an index in the user's cache; it must not change a data set or a run, and it makes no
calls.
"""
