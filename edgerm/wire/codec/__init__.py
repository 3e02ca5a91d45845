"""Values to messages and back, a file per subject: the only room that knows both."""
