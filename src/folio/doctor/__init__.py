"""What this machine and this installation are like, for a bug report."""
