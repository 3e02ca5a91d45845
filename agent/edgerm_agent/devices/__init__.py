"""What this box has beside CPUs and memory: which devices there are, and what a task gets of one.

Who gets a device is not decided here (`edgerm_agent.core`).
"""
