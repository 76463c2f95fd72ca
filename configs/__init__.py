"""One file per run; each defines get_config(arg) on top of common.get_config()."""
