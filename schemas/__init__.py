"""Data that crosses process boundaries: events, turns and policy snapshots. No I/O, no imports of ours."""
