"""Every part killed, stopped, cut off and restarted while others write: nobody stays wrong, nothing owed is lost."""
