"""edgerm, the library: what master, agent and frameworks share, and what others build on. Import from its packages."""
