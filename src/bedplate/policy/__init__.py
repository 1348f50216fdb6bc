"""Who may do what to which rows, decided by Cedar. Pure, no I/O."""
