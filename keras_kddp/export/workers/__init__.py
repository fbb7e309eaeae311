"""Programs that run in processes of their own, and how they are asked."""
