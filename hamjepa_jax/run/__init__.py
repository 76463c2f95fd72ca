"""A run: set-up, inputs, workdir, hooks, several seeds at once, and runs restored from their workdirs."""
