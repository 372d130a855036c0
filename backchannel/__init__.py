"""Backchannel: clicks, barge-ins and rephrases in, versioned policy snapshots out."""
