"""Where work runs: local processes, limited processes for user code, the probe of this machine."""
