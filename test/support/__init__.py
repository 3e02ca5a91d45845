"""Helpers that several tests share: a master in this process, an agent without tasks, a bare framework."""
