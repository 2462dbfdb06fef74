"""What a user does, one file each: every function returns records and prints nothing."""
