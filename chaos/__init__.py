"""The fault campaign: Gavel, or its control, under load while all of it is killed, stopped and cut off."""
