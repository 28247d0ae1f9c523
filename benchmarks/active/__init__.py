"""Active strategy beside fixed and uniform temperatures."""
