"""Drop-in use inside other packages."""
