"""One file per run; each defines get_config(arg) on top of the defaults or of another one."""
