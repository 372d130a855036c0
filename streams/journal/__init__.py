"""The journal: events on disk before they are acknowledged, and learned from there."""
