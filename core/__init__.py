"""Everything both doors share: the vocabulary, the database, and the science."""
