"""Browser storage: state that a page and the server both read and write."""
