"""Path operations of the application's own whose results are cached and watched: `@reactive`."""
