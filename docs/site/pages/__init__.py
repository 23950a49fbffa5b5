"""What pages take from the code: each module returns Markdown."""
