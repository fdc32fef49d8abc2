"""The HTTP service around `editing_core`. Importing the package itself costs nothing."""
