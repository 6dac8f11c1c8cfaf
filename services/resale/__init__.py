"""The resale timer: holds every window that the log opened, and says when one is due; decides nothing."""
