"""The server as its users meet it: real files, real requests."""
