"""What authors of frameworks, plugins, executors, stores and transports test their work with; part of the product."""
