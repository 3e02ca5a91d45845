"""The simulator: the real cores in one process, on virtual time, over faulty links, from a seed."""
