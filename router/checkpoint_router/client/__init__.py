"""Floor 5, in the agent's process: the saver, the runs it serves, and its links to routers."""
