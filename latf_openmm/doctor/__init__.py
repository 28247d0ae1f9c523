"""What works on this machine, tried rather than asked."""
