"""What every part of the server knows: settings, failures as JSON, the forms of requests."""
