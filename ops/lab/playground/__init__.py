"""The playground: search a catalogue by hand, and watch the next results change with what is learned."""
