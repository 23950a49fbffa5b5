"""The FastAPI adapter: routes that declare the OpenAPI document, and a dispatcher that serves them."""
