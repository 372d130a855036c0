"""Off-policy evaluation: what a policy would have earned, estimated from a log of another one's decisions. Pure
numpy."""
