"""LLaVA's and FastChat's wire at the controller's edge: nothing inside speaks it."""
