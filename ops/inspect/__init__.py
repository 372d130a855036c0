"""Commands that look into what was learned."""
