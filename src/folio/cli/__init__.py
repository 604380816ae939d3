"""The command line: one file a verb. Parse, open, call, print."""
