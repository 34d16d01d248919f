"""Typed state: classes whose fields are kept in the browser, the session or the store, and handles to them."""
