"""`backchannel bandits`: a comparison of bandits."""
