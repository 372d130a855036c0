"""Commands that inspect what was learned."""
