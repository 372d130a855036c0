"""The page of `backchannel dashboard`."""
