"""The ranking layer: the order in which to show retrieved candidates, learned from clicks as sums."""
