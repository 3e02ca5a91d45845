"""What two programs share, and what decides: values and machines. No I/O, clock, chance, log or protobuf."""
