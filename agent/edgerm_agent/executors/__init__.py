"""The executors: each runs tasks of one kind and knows nothing of the others. `kept` is what two of them share."""
