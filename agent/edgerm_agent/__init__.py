"""The agent: runs tasks on one box and is the truth about them. A program: nothing imports it but the command line."""
