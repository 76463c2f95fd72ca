"""A run: set-up, inputs, workdir, hooks, several seeds at once, many runs, and runs restored from their workdirs."""
