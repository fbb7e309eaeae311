"""A student trained under a teacher."""
