"""What each process that parses a source is a fork of. It loads nothing here: whoever will open a source warms it."""

from bedplate.isolation.template import Template

TEMPLATE = Template("bedplate.data.parsing.process", threads=2)
