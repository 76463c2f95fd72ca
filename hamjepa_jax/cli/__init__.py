"""The command line: one parser, one way to end, one way to log. A command is a page that parses and calls."""
