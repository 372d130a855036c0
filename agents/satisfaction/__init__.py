"""How satisfied people are: what they say, and what their signals say where nobody was asked."""
