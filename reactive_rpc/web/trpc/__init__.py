"""The wire of tRPC v11, under `/trpc`: its official clients call the same procedures as `/rpc` serves, unmodified."""
