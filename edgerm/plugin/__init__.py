"""What third parties implement for an agent: executors. Values and protocols only."""
