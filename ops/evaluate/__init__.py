"""`backchannel evaluate`: what other policies would have earned."""
