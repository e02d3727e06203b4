"""What vgen costs: measured side by side, in processes of their own, and written as JSON beside a printed table."""
