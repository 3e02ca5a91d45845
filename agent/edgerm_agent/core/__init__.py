"""What the agent decides: events in, effects out. No I/O, clock, chance, log or protobuf."""
