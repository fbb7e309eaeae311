"""Which units leave a student while it trains, and how many."""
