"""Sample frameworks, each one file that reads like a tutorial."""
