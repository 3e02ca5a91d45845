"""The suites that every implementation of an interface passes, ours and those of others; a module per interface.

A test module subclasses a suite and says how to make the thing; pytest finds the inherited tests. Needs pytest.
"""
