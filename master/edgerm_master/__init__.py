"""The master: offers what agents have to frameworks. A program, no library: nothing imports it but the command line."""
