"""From objective to infrastructure: requirements, catalogue, queueing, cost, choice, explanation. Pure, no I/O."""
