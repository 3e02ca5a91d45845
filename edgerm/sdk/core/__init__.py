"""The pure part of the SDK: the session machine, and the values that it takes and gives."""
