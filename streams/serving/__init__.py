"""Serving: the policy reader and the policy that it holds."""
