"""Policy versions in the store: written, read, moved and signed."""
