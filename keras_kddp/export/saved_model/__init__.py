"""SavedModels to build upon."""
