"""The memory index: the entities that have worked for each query."""
