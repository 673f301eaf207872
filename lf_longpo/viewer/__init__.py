"""A local page to read pairs with long contexts on, and to decide about them."""
