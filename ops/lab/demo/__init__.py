"""`backchannel demo`: the closed loop with simulated people, and its report."""
