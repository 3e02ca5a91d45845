"""Where the registry and the journal lie: rows of (kind, key, versioned blob), named bytes, and the data directory."""
