"""When one machine is not enough: encoding and training on Ray, serving from an engine."""
