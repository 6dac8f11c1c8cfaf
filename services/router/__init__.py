"""The router: who gets each lead, decided in pure code, committed once, published from what was committed."""
