"""The memory index: which entities have worked for which query."""
