"""The laboratory: simulated worlds, public logs, benches and training. Nothing that serves depends on it."""
