"""`backchannel bandits`: bandits compared."""
