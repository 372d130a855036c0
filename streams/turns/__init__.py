"""From records to turns: sources, decoding, assembly, and where a partition stands."""
