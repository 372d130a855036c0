"""`backchannel dashboard`: the page and its server."""
