"""`backchannel evaluate`: off-policy evaluation."""
