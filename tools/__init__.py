"""Programs that look after the checkout; no part of the package."""
