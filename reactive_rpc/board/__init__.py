"""What workers share beside the log: small things that expire."""
