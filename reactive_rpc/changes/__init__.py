"""The contracts of capture, of the log and of the ephemeral store, and what their back ends share."""
