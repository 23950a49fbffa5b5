"""Any database of SQLAlchemy's, without triggers: what this process writes is seen in its sessions."""
