"""What commands share: how they run and end, and their arguments."""
