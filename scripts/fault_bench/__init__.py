"""Measures what faults of workers, clients and relays cost those who ask: failures and seconds."""
