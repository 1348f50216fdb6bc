"""Pure statistics: intervals, e-values, drift tests, sketches."""
