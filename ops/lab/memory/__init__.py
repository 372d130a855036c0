"""Evidence for the memory index."""
