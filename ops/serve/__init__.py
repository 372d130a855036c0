"""`backchannel serve`: the policy and the events over HTTP."""
