"""The API's routes, a module an idea; each parses, calls one method of the service, answers."""
