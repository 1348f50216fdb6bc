"""Feature views: declared once, point in time, the same code offline and online."""
