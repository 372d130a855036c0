"""`backchannel health`: how a running system is doing."""
