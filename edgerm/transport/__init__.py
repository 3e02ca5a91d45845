"""How programs reach each other: channels and servers over HTTP and in memory. No decisions and no messages."""
