"""Several processes on one database, killed at the worst moments: nobody reads the past, nobody stays behind."""
