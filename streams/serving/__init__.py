"""Serving: the policy reader and the policy."""
