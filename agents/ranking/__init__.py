"""The ranking layer: in which order to show the candidates that retrieval brought, learned from clicks as sums."""
