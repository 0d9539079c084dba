"""What every process shares: settings, logging, health routes, error rendering, serving."""
