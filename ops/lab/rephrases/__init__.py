"""Training and evaluation of the rephrase detector and of rewrites, on public logs and in simulated worlds."""
