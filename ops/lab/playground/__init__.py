"""The playground: search a catalogue by hand, and watch what is learned change the next result."""
